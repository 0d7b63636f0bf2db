// Package history is the conversation of an agent as data: messages, what makes them
// a valid request to a model, and how much of them is sent.
//
// Everything here is pure. A Message is what one side said at one time. Order is the
// whole structure: a user's message begins a turn; the turn goes on with answers of the
// assistant and the results of the tools that they call, and ends with an answer that
// calls none.
//
//	Repair   makes any sequence of messages valid, whatever was cut out of it
//	Trim     takes from it what fits, in whole turns and whole rounds
//	Check    says what is wrong with one; what Repair and Trim return passes it
//
// What is valid is what the strictest of the providers accepts: roles take turns, every
// call has exactly one result, right after the message that made it and in its order, and
// nothing is empty.
package history
