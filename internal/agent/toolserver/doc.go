// Package toolserver gives an agent the tools of MCP servers: programs that it starts and
// speaks to over their stdin and stdout, with the official SDK.
//
// A Pool holds the servers that the settings name. Each starts at once and stays for all
// runs; one that dies is started again when its tools are wanted next, after a pause that
// grows. Its tools are offered as SERVER_TOOL. A server that does not start is a note for
// the model, and nothing else is the worse for it.
//
// What servers say is not trusted to be small or well formed: tools and their schemas have
// limits, and results go through those of package tool.
package toolserver
