// Package provider asks language models, whoever serves them.
//
// A Model answers one Request at a time with one Answer, telling what it says while it
// says it. There are three, over the official SDKs: chat completions (OpenAI's, and what
// everybody else serves too), OpenAI's responses, and Anthropic's messages. New makes the
// one that a name means:
//
//	openai/gpt-5              OpenAI, responses; chat completions where BaseURL names another server
//	anthropic/claude-opus-5   Anthropic; claude/... is the same
//	host:ollama/llama3.2      a model server on the host, through the Guest API
//	anything, with a BaseURL  a server that speaks chat completions
//
// # What can go wrong
//
// Every error is an *Error: a fault.Error with words and a hint for the person in the
// chat, and what a program needs to know: whether to ask again, when, and whether less
// context would help. An answer is whole or an error: a stream that ends early, or with
// half an event, is an Error, whatever was told before.
//
// Patient asks again where that helps. It is a decorator, so that models need not know of
// retries: the SDKs' own are off. A watchdog below all of them ends requests to servers
// that say nothing for too long.
package provider
