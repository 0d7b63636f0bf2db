// Package modeltest has a language model for tests: a server that speaks the published
// wire formats of OpenAI (chat completions, responses) and Anthropic (messages), streaming,
// and says what a script tells it to.
//
// It is stricter than the real ones. A conversation that any of them might refuse is
// answered with 400 and kept as a fault: calls without results, results out of order or of
// nothing, roles that do not take turns, empty content, arguments that are no object, and
// fields that are not in the format.
//
// Its code shares nothing with the packages it tests but the type of a message.
package modeltest
