// Package agent is the LLM agent that lives in a VM: it takes messages from the host, works
// on them with a language model and tools, and answers. cmd/aegis-agent is it as a program.
//
// # A message's way
//
// The host posts a frame to the inbox. Its conversation ends the run that is under way in
// it, puts the message on disk, and only then answers: from there on it is not lost. A run
// works on it: it asks package loop what to do next, does that, and puts what came of it on
// disk, until the answer is there. What it says on the way goes to the host through its
// voice. When the host has the answer, the message is marked as ended.
//
// # What survives
//
// Everything is in the session's file (package session), so that the agent may be killed
// at any moment. When it starts it looks for messages that were not ended and goes on with
// them: calls that were under way are ended with all that they had started, and have a
// result that says so. An answer that was sent twice has the same msg_id twice.
//
// A run ends early when a newer message or a control.cancel comes in its session. Its
// processes are killed then, background ones included.
//
// # Who owns what
//
//	Agent         the listener, the lease of the machine, servers of tools, conversations
//	conversation  a session and its run; one frame at a time
//	run           the work on one message; its goroutine writes to the session until the
//	              conversation takes that away
//	voice         the frames of a run to the host, in their order
//
// Packages below this one know nothing of it. The package imports only leaves of the rest
// of the repository: an agent is a program of its own, and needs no daemon to be tested.
package agent
