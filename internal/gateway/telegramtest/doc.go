// Package telegramtest is a server of the Telegram Bot API for tests, with the limits of
// the real one: sizes of texts, captions and files, rates for each chat with retry_after,
// what an edit may be and what formatting, one poll at a time.
//
//	srv := telegramtest.New()
//	web := httptest.NewServer(srv)            // api_base; or srv.Client, without a network
//	srv.Write(chat, "hello")                  // what a person writes
//	srv.Wait(ctx, func() bool { return ... }) // until the bot has done something
//	srv.Messages(chat)                        // what the person sees
//
// Faults are made with Fail, CutPolls, Repeat and RefuseEntities.
package telegramtest
