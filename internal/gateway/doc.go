// Package gateway is aegis-gateway: the program on the host that joins the agent in a VM
// to the places where people write to it.
//
// A Channel is one such place: Telegram, a webhook. It takes messages in (Receive) and
// shows what the agent says (Serve); each is one small package, and cmd/aegis-gateway
// lists them. All else is here, once for all channels: the configuration and its changes
// (Gateway), the way to the agent and back (Line), and what is shown where (Session).
//
// # Nothing lost, nothing twice
//
// A message in has an id that follows from the service's own, and is acknowledged to the
// service only when the daemon has stored it: what is received again is the same message.
//
// An answer has a seq. A Session keeps in a file which seq was shown last, and beside it
// a note of the channel's on the answer that it is about to show, so that one that was
// killed in between goes on instead of beginning again. Only then does the Line tell the
// daemon how far the channel has read (the tether's watermark): a number for all sessions,
// the highest below which everything has been shown.
//
// # Trust
//
// What people write goes to the agent and nowhere else, unless a channel's section allows
// more. What the agent says is a guest's: frames are decoded with limits, sessions that
// the channel does not know are dropped, names of files never become paths.
//
// The package speaks to the daemon through package client, and knows no host code else.
package gateway
