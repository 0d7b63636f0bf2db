package cli

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/xfeldman/aegisvm/api"
	"github.com/xfeldman/aegisvm/internal/config"
)

type instanceScheduleOptions struct {
	app *app

	at   string
	zone string
	json bool
}

func newInstanceSchedule(a *app) *cobra.Command {
	o := &instanceScheduleOptions{app: a}
	cmd := &cobra.Command{
		Use:   "schedule [--json] X [SCHEDULE] -- CMD [ARG...]",
		Short: "run a command in an instance at times",
		Long: `Run a command in an instance at times, and wake the instance for it. SCHEDULE is a cron expression:
minute, hour, day of month, month, day of week; or @hourly, @daily, @weekly, @monthly, @yearly. With
--at the command runs once.

What was due while this host slept or the daemon was not there is run once, if it is less than an hour
late. A time that comes while the last run has not ended is left out. An instance that is disabled is not
woken. All of that, and the output, is in the instance's log: aegis logs --exec X.`,
		Example: `  aegis instance schedule web '*/5 * * * *' -- /usr/local/bin/poll
  aegis instance schedule db '30 3 * * *' --time-zone Europe/Berlin -- /workspace/dump.sh
  aegis instance schedule web --at +10m -- echo tea`,
		Args:              o.args,
		ValidArgsFunction: a.completeRef,
		RunE:              func(cmd *cobra.Command, args []string) error { return o.run(cmd.Context(), cmd, args) },
	}
	f := cmd.Flags()
	f.SortFlags = false
	f.StringVar(&o.zone, "time-zone", "", "`ZONE` of the schedule, as in Europe/Berlin or UTC (default this host's)")
	f.StringVar(&o.at, "at", "", "run once, at `TIME`: +10m, 15:04, 2030-01-02 15:04 or 2030-01-02T15:04:05Z")
	f.BoolVar(&o.json, "json", false, "print JSON")
	return cmd
}

// args checks the operands before --.
func (o *instanceScheduleOptions) args(cmd *cobra.Command, args []string) error {
	dash := cmd.ArgsLenAtDash()
	want := 2
	if o.at != "" {
		want = 1
	}
	switch {
	case dash < 0 || dash == len(args):
		return usage(cmd, "no command to run; put it behind --")
	case dash == 0:
		return usage(cmd, "which instance?")
	case dash < want:
		return usage(cmd, "when? give a schedule such as '*/5 * * * *', or --at TIME")
	case dash > want:
		return usage(cmd, "stray argument %q; quote the schedule: '*/5 * * * *'", args[want])
	case o.at != "" && o.zone != "":
		return usage(cmd, "--at has no --time-zone")
	}
	return nil
}

func (o *instanceScheduleOptions) run(ctx context.Context, cmd *cobra.Command, args []string) error {
	dash := cmd.ArgsLenAtDash()
	req := api.ScheduleRequest{TimeZone: o.zone, Command: args[dash:]}
	if o.at == "" {
		req.Schedule = args[1]
	} else {
		t, err := parseMoment(o.at, time.Now())
		if err != nil {
			return usage(cmd, "%v", err)
		}
		req.At = &t
	}
	out, err := o.app.client().Schedule(ctx, args[0], req)
	if err != nil {
		return err
	}
	if o.json {
		return o.app.printJSON(out)
	}
	return o.app.print("Schedule: %s\nNext: %s\n", out.ID, momentText(out.NextAt))
}

// parseMoment reads a point in time as people write it; a time alone is the next of that.
func parseMoment(s string, now time.Time) (time.Time, error) {
	if span, ok := strings.CutPrefix(s, "+"); ok {
		d, err := config.ParseDuration(span)
		return now.Add(max(d, time.Second)), err
	}
	for _, layout := range []string{time.RFC3339, "2006-01-02T15:04Z07:00"} {
		if t, err := time.Parse(layout, s); err == nil {
			return t, nil
		}
	}
	for _, layout := range []string{time.DateTime, "2006-01-02 15:04", "2006-01-02T15:04:05", "2006-01-02T15:04"} {
		if t, err := time.ParseInLocation(layout, s, time.Local); err == nil {
			return t, nil
		}
	}
	if t, err := time.Parse("15:04", s); err == nil {
		day := now
		at := func() time.Time {
			return time.Date(day.Year(), day.Month(), day.Day(), t.Hour(), t.Minute(), 0, 0, time.Local)
		}
		if !at().After(now) {
			day = day.AddDate(0, 0, 1)
		}
		return at(), nil
	}
	return time.Time{}, fmt.Errorf("%q is no time; as in +10m, 15:04, '2030-01-02 15:04' or 2030-01-02T15:04:05Z", s)
}

func momentText(t *time.Time) string {
	if t == nil {
		return "-"
	}
	return t.Local().Format(time.DateTime)
}

type instanceSchedulesOptions struct {
	app  *app
	json bool
}

func newInstanceSchedules(a *app) *cobra.Command {
	o := &instanceSchedulesOptions{app: a}
	cmd := &cobra.Command{
		Use:   "schedules [--json] X",
		Short: "list the schedules of an instance",
		Long: `List the schedules of an instance, with the next time of each and how the last run ended. Those that
its agent keeps for itself come last; they are changed by the agent.`,
		Example:           "  aegis instance schedules web",
		Args:              oneRef,
		ValidArgsFunction: a.completeRef,
		RunE:              func(cmd *cobra.Command, args []string) error { return o.run(cmd.Context(), args[0]) },
	}
	cmd.Flags().BoolVar(&o.json, "json", false, "print JSON")
	return cmd
}

func (o *instanceSchedulesOptions) run(ctx context.Context, ref string) error {
	list, err := o.app.client().Schedules(ctx, ref)
	if err != nil {
		return err
	}
	if o.json {
		return o.app.printJSON(list)
	}
	if len(list) == 0 {
		o.app.say("no schedules")
		return nil
	}
	return o.app.print("%s", schedulesText(list))
}

func schedulesText(list []api.Schedule) string {
	rows := [][]string{{"ID", "SCHEDULE", "NEXT", "LAST", "RESULT", "COMMAND"}}
	for _, s := range list {
		rows = append(rows, []string{
			s.ID, scheduleText(s), momentText(s.NextAt), momentText(s.LastAt), shorten(resultText(s), 40), shorten(taskText(s), 40),
		})
	}
	return table(rows)
}

func scheduleText(s api.Schedule) string {
	if s.At != nil {
		return "once"
	}
	return strings.TrimSpace(s.Schedule + " " + s.TimeZone)
}

func resultText(s api.Schedule) string {
	switch {
	case s.LastAt == nil:
		return "-"
	case s.LastResult == "":
		return "running"
	}
	return s.LastResult
}

func taskText(s api.Schedule) string {
	if s.Source == api.ScheduleOfAgent {
		return fmt.Sprintf("message %q", s.Message)
	}
	return commandText(s.Command)
}

type instanceUnscheduleOptions struct {
	app  *app
	json bool
}

func newInstanceUnschedule(a *app) *cobra.Command {
	o := &instanceUnscheduleOptions{app: a}
	cmd := &cobra.Command{
		Use:               "unschedule [--json] X ID",
		Short:             "forget a schedule of an instance",
		Long:              `Forget a schedule of an instance. A run of it that is under way goes on.`,
		Example:           "  aegis instance unschedule web sched-019ab3d4c5e6f7a8b",
		Args:              refAnd("schedule"),
		ValidArgsFunction: a.completeRef,
		RunE:              func(cmd *cobra.Command, args []string) error { return o.run(cmd.Context(), args) },
	}
	cmd.Flags().BoolVar(&o.json, "json", false, "print JSON")
	return cmd
}

func (o *instanceUnscheduleOptions) run(ctx context.Context, args []string) error {
	if err := o.app.client().Unschedule(ctx, args[0], args[1]); err != nil {
		return err
	}
	if o.json {
		return o.app.printJSON(api.Outcome{Status: "deleted", ID: args[1]})
	}
	return o.app.print("Schedule deleted: %s\n", args[1])
}
