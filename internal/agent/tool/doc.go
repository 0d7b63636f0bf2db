// Package tool is what an agent can do: a table of tools, each with a name, a schema of
// its arguments, and a function.
//
// A tool gets its arguments checked for form, and a context that ends with the run. Its
// Result is text for the model, with pictures where it has some. An error is for the model
// too: it says what was wrong and what to do instead, and ends nothing. Every result is
// bounded; what is larger goes to a file, and the model is told which.
//
// Tools whose key is missing, and those that the user has turned off, are not in a Set:
// a model is never offered what cannot work.
//
// The agent is alone in its machine and is its root, so that no tool confines paths or
// commands. What is outside of the machine is guarded by the host.
package tool
