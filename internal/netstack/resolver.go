package netstack

// Resolver answers the guest's questions.
type Resolver interface{}

// HostResolver returns nothing yet.
func HostResolver() Resolver { return nil }
