// Package schedule does things for instances at times: it runs commands that users have
// scheduled, and sends the messages that agents have asked to be reminded with. What is
// due wakes its instance.
//
// # Times
//
// A When is one moment, or a cron expression of five fields in a time zone. It computes
// and knows no clock: look says, from the last time that was dealt with and the time of
// now, what is due and what was missed. So all that clocks do to a schedule is one
// pure function with a table of cases:
//
//   - what was missed, because the daemon was not there or the host slept, happens once,
//     if the latest of the missed times is younger than Grace; what is older is left out;
//   - a clock that is put back by less than Grace repeats nothing; one that is put back by
//     more was wrong before, and the schedule begins anew with the time of now;
//   - in the hour that a zone skips, what was to happen does so at its end; in the one
//     that it repeats, things happen once. Expressions for every hour follow the time
//     that passes instead.
//
// # Who does it
//
// A Runner owns all schedules. One goroutine waits for the next time of any; what is due
// happens in goroutines of its own, of which a schedule has at most one: a time that comes
// while the last is still under way is left out, and said to be.
//
// Schedules of users (Entry) are in the Store, and go with their instance. Those of agents
// are in a file of the workspace that the agent writes (cronfile.go), which is hostile
// input; the Runner keeps only how far it has got with them.
//
// The package knows instances by what it declares here, and imports no adapter.
package schedule
