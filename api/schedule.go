package api

import "time"

// ScheduleRequest is the body of POST /v1/instances/{id}/schedules: when, and what to run.
type ScheduleRequest struct {
	// Schedule is a cron expression of five fields, or @hourly, @daily, @weekly, @monthly,
	// @yearly. At is one moment instead.
	Schedule string     `json:"schedule,omitempty"`
	At       *time.Time `json:"at,omitempty"`
	// TimeZone of Schedule, as in "Europe/Berlin"; "" is the host's.
	TimeZone string   `json:"time_zone,omitempty"`
	Command  []string `json:"command"`
}

// Schedule is one line of GET /v1/instances/{id}/schedules: of a user, with a Command, or of
// the instance's agent, with a Message.
type Schedule struct {
	ID        string     `json:"id"`
	Source    string     `json:"source"` // "user" or "agent"
	Schedule  string     `json:"schedule,omitempty"`
	At        *time.Time `json:"at,omitempty"`
	TimeZone  string     `json:"time_zone,omitempty"`
	Command   []string   `json:"command,omitempty"`
	Message   string     `json:"message,omitempty"`
	Session   string     `json:"session,omitempty"` // that the message belongs to
	CreatedAt *time.Time `json:"created_at,omitempty"`
	NextAt    *time.Time `json:"next_at,omitempty"` // missing: never, or it is off
	// LastAt is when it ran last, LastExec the id of that run, and LastResult how it ended:
	// "exit 0"; "" while it runs.
	LastAt     *time.Time `json:"last_at,omitempty"`
	LastExec   string     `json:"last_exec,omitempty"`
	LastResult string     `json:"last_result,omitempty"`
}

// The sources of a Schedule.
const (
	ScheduleOfUser  = "user"
	ScheduleOfAgent = "agent"
)

// ChangeRequest is the body of PATCH /v1/instances/{id}; what is missing stays as it is. The
// answer is the InstanceInfo as it is then.
type ChangeRequest struct {
	PauseAfterS *int64  `json:"pause_after_s,omitempty"` // as in CreateRequest
	StopAfterS  *int64  `json:"stop_after_s,omitempty"`  // as in CreateRequest
	IdlePolicy  *string `json:"idle_policy,omitempty"`   // as in CreateRequest
	Egress      *string `json:"egress,omitempty"`        // as in RunRequest
	// AllowHosts replaces all rules there are; [] is none.
	AllowHosts *[]string `json:"allow_hosts,omitempty"`
}

// Traffic is what an instance has had with the world over its network card, since the daemon
// began; the workspace and DNS are not counted.
type Traffic struct {
	BytesIn        uint64 `json:"bytes_in"`        // to the VM
	BytesOut       uint64 `json:"bytes_out"`       // from it
	ConnectionsIn  uint64 `json:"connections_in"`  // to its ports
	ConnectionsOut uint64 `json:"connections_out"` // to the outside, flows of UDP included
	Denied         uint64 `json:"denied"`          // attempts that were refused
}

// Denial is an attempt to reach something that was refused.
type Denial struct {
	TS    time.Time `json:"ts"`
	Text  string    `json:"text"`
	Allow string    `json:"allow,omitempty"` // the options that would allow it
}
