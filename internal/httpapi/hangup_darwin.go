package httpapi

// hangupEvents is empty: darwin tells of a peer's close with POLLHUP, unasked.
const hangupEvents = 0
