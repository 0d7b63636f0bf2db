package guestproto

// StreamAPI carries one connection of a program in the guest to the Guest API. The host
// opens such streams ahead of need. The guest answers the header when a program has
// connected to APIAddress, and from then on the stream is that connection, half-closes
// included; until then nothing goes over it. Only guests with AbilityAPI have it.
const StreamAPI StreamKind = "api"

// AbilityAPI is the name of StreamAPI in Welcome.
const AbilityAPI = "api"

// Where programs in the guest find the Guest API.
const (
	APIPort    = 7777
	APIAddress = "127.0.0.1:7777"
)
