// Package telegram is the gateway's channel to Telegram, over the Bot API.
//
// One goroutine receives: it polls for updates, and asks for those after an update, which
// is what acknowledges it, only when the daemon has stored the message. One goroutine for
// each chat shows: it owns the messages of the answer under way, edits them as the text
// grows at the rate that Telegram allows, and brings them to the final text. All that the
// bot writes in a chat goes through that goroutine.
//
// Text is parsed as Markdown and sent as plain text with entities, Telegram's own form of
// formatting (see Render): there is no markup to escape, and a text is split by what
// Telegram counts, UTF-16 units.
//
// # Once
//
// Telegram has no way to send a message idempotently, but editing is. So a chat notes
// before it sends a message that it will, and after that its id, in the session's file;
// whoever goes on from there edits the messages it finds. Where the note has no id for a message
// that was being sent, the answer is completed with another one, and the lost one is
// found among the ids between and deleted: only messages of the bot's own can be edited,
// which a try that changes nothing tells.
package telegram
