package instance

// afterEnd answers what reaches an instance that is no more.
func (t *transition) afterEnd(ev Event) {
	switch ev.Kind {
	case Acquire, Start:
		t.Waiting++
		t.answerHolds(ErrDeleted)
	case Pause, Hibernate, Stop, Disable, Restart, Revert:
		t.answerGoal(ErrDeleted)
	case TakeState:
		t.Captures++
		t.refuseCaptures(ErrDeleted)
	case Delete:
		t.answerGoal(nil)
	case Release:
		t.Holds = max(0, t.Holds-1)
	case Abandon, Idle, Done, Exited, Crashed, Died, eventKinds:
	}
}

func (t *transition) apply(ev Event) {
	switch ev.Kind {
	case Acquire:
		t.Waiting++
		if t.Goal == ToDeleted {
			t.answerHolds(ErrDeleted)
			return
		}
		t.wanted()
	case Start:
		t.start()
		t.wanted()
	case Abandon:
		t.Waiting = max(0, t.Waiting-1)
		return
	case Release:
		t.Holds = max(0, t.Holds-1)
	case Pause, Hibernate, Stop, Disable, Restart, Revert, Delete:
		t.aim(goalOf(ev.Kind))
	case Idle:
		t.idle()
		return
	case Done:
		t.done(ev)
	case Exited, Crashed:
		t.exited(ev.Kind == Crashed)
	case Died:
		t.died()
	case TakeState:
		t.Captures++
		if t.Goal == ToDeleted {
			t.refuseCaptures(ErrDeleted)
			return
		}
	case eventKinds:
	}
	t.settle()
}

func goalOf(k EventKind) Goal {
	switch k { //nolint:exhaustive // only explicit requests have a goal
	case Pause:
		return ToPaused
	case Hibernate:
		return ToHibernated
	case Stop:
		return ToStopped
	case Disable:
		return ToDisabled
	case Restart:
		return ToRestarted
	case Revert:
		return ToReverted
	default:
		return ToDeleted
	}
}

// idle puts the instance a step further to sleep.
func (t *transition) idle() {
	if t.Holds > 0 || t.Goal != Free || t.Over {
		return
	}
	switch t.State { //nolint:exhaustive // sleep deepens in two states only
	case Running:
		t.begin(Pausing, DoPause)
	case Paused:
		t.begin(Saving, DoSave)
	}
}

// wanted ends a save that nobody asked for: what is still in memory wakes faster.
func (t *transition) wanted() {
	if t.State == Saving && t.Goal == Free {
		t.do(Cancel)
	}
}

// start enables the instance and waits for it like an Acquire. It revokes what
// would disable or pause it; a stop under way comes first and is followed by a
// start.
func (t *transition) start() {
	t.Waiting++
	switch t.Goal {
	case ToDeleted:
		t.answerHolds(ErrDeleted)
		return
	case ToDisabled:
		t.answerGoal(ErrSuperseded)
		if !t.State.Settled() {
			t.Goal = ToStopped
		}
	case ToPaused:
		t.answerGoal(ErrSuperseded)
	case Free, ToRunning, ToHibernated, ToStopped, ToRestarted, ToReverted:
	}
	t.Enabled, t.Barred = true, false
}

// aim sets a new goal. A machine that is being booted towards something else is
// not waited for.
func (t *transition) aim(g Goal) {
	if t.Goal == ToDeleted && g != ToDeleted {
		t.effects = append(t.effects, Effect{Refuse, ErrDeleted})
		return
	}
	if t.Goal != Free && t.Goal != g {
		t.effects = append(t.effects, Effect{Overrule, ErrSuperseded})
	}
	if g == ToRestarted || g == ToReverted {
		t.Enabled, t.Barred = true, false
	}
	if g == ToHibernated || g == ToStopped || g == ToDisabled || g == ToDeleted {
		t.answerHolds(ErrSuperseded) // or they would start it again behind the stop
	}
	if g == ToDeleted {
		t.refuseCaptures(ErrDeleted)
	}
	t.Goal = g
	switch {
	case t.State == Booting && g != ToPaused && (g != ToHibernated || !t.Hibernated), t.State == Saving && g != ToHibernated:
		t.do(Cancel)
	}
}

func (t *transition) exited(crashed bool) {
	t.Barred = t.Barred || crashed
	if t.State != Stopped && t.State != Erasing {
		t.Over = true
	}
}

// died handles a machine that ended by itself. With an operation in flight, that
// operation fails soon and done takes care.
func (t *transition) died() {
	switch t.State {
	case Running, Paused:
		t.State = Stopped
		t.reset()
	case Booting, Pausing, Resuming, Saving, Capturing, Stopping:
		t.Lost = true
	case Stopped, Erasing, Deleted:
	}
}
