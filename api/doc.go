// Package api is the wire form of AegisVM's HTTP API on the daemon's socket: the
// types of requests and answers, once, for server and clients.
//
// Field names are a contract with scripts that exist. Times are RFC 3339.
package api
