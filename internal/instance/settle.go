package instance

// reset forgets what was true of a machine that is gone.
func (t *transition) reset() {
	t.Over, t.Lost = false, false
	t.do(DisarmIdle)
}

// done ends the operation in flight. Each has one outcome for success and one for
// failure; a lost machine makes any of them Stopped.
func (t *transition) done(ev Event) {
	was, err := t.State, ev.Err
	if was.Settled() {
		return
	}
	switch was {
	case Booting:
		t.State = pick(err, Running, Stopped)
		if err == nil && ev.Paused {
			t.State = Paused
		}
		t.Hibernated = t.Hibernated && err != nil && !ev.Spent
	case Pausing:
		t.State = pick(err, Paused, Running)
	case Resuming:
		t.State = pick(err, Running, Paused)
	case Saving:
		t.State = pick(err, Stopped, Paused)
		t.Hibernated = err == nil
	case Capturing: // whatever came of it
		t.State, t.Back = t.Back, Stopped
	case Stopping:
		if t.Hibernated { // there was no machine, only its memory
			t.State, t.Hibernated = Stopped, err != nil
			break
		}
		t.State = pick(err, Stopped, Running)
	case Erasing:
		t.State = pick(err, Deleted, Stopped)
	case Stopped, Running, Paused, Deleted:
	}
	if t.Lost && t.State != Stopped {
		t.State = Stopped
		if err == nil {
			err = ErrEnded
		}
	}
	if t.State == Stopped {
		t.reset()
	}
	switch {
	case err != nil:
		t.failed(was, err)
	case was == Booting && t.State == Running && (t.Goal == Free || t.Goal == ToRunning || t.Goal == ToPaused):
		// Even if the program has ended by now or is to be paused: those who waited
		// had their start. Left waiting they would start it again for ever.
		t.answerHolds(nil)
	}
}

func pick(err error, ok, failed State) State {
	if err != nil {
		return failed
	}
	return ok
}

// failed tells those whom the failure of an operation concerns.
func (t *transition) failed(was State, err error) {
	switch was {
	case Booting, Resuming:
		if t.Goal == Free || t.Goal == ToRunning {
			t.answerHolds(err)
		}
		if t.Goal == ToRunning {
			t.answerGoal(err)
		}
	case Pausing:
		if t.Goal == ToPaused || t.Goal == ToHibernated {
			t.answerGoal(err)
		}
	case Saving:
		if t.Goal == ToHibernated {
			t.answerGoal(err)
		}
	case Stopping, Erasing:
		if t.State != Stopped || was == Erasing || t.Hibernated {
			t.Over = false
			if t.Goal != Free {
				t.answerGoal(err)
			}
		}
	case Stopped, Running, Paused, Capturing, Deleted:
	}
}

// settle decides what a settled state leads to. It is the only place where
// operations begin (idle pauses aside), so none can begin while one is in flight.
func (t *transition) settle() {
	switch t.State {
	case Running:
		t.settleRunning()
	case Paused:
		t.settlePaused()
	case Stopped:
		t.settleStopped()
	case Deleted:
		t.answerHolds(ErrDeleted)
		t.answerGoal(nil)
	case Booting, Pausing, Resuming, Saving, Capturing, Stopping, Erasing:
	}
}

func (t *transition) settleRunning() {
	if t.Goal == ToRunning {
		t.answerGoal(nil)
	}
	switch {
	case t.Captures > 0 && !t.Over:
		if t.Goal == Free {
			t.answerHolds(nil)
		}
		t.capture()
		return
	case t.Goal == ToStopped, t.Goal == ToDisabled, t.Goal == ToRestarted, t.Goal == ToReverted, t.Goal == ToDeleted, t.Over:
		t.begin(Stopping, DoStop)
		return
	case t.Goal == ToPaused, t.Goal == ToHibernated:
		t.begin(Pausing, DoPause)
		return
	}
	t.answerHolds(nil)
	t.armIdle()
}

func (t *transition) armIdle() {
	if t.Holds > 0 {
		t.do(DisarmIdle)
	} else {
		t.do(ArmIdle)
	}
}

func (t *transition) settlePaused() {
	if t.Goal == ToPaused {
		t.answerGoal(nil)
	}
	switch {
	case t.Captures > 0 && !t.Over:
		t.capture()
	case t.Goal == ToHibernated && !t.Over:
		t.begin(Saving, DoSave)
	case t.Goal != Free, t.Over:
		t.begin(Stopping, DoStop)
	case t.Waiting > 0:
		t.begin(Resuming, DoResume)
	default:
		t.armIdle()
	}
}

func (t *transition) settleStopped() {
	if t.Captures > 0 {
		t.capture()
		return
	}
	switch t.Goal {
	case ToDeleted:
		t.answerHolds(ErrDeleted)
		t.begin(Erasing, DoErase)
		return
	case ToDisabled:
		t.Enabled = false
		t.answerGoal(nil)
	case ToHibernated:
		if t.Hibernated {
			t.answerGoal(nil)
		} else {
			t.answerGoal(ErrNotRunning)
		}
	case ToStopped:
		if t.Hibernated {
			t.begin(Stopping, DoStop)
			return
		}
		t.answerGoal(nil)
	case ToPaused:
		t.answerGoal(ErrNotRunning)
	case ToRestarted, ToRunning:
		if t.Hibernated && t.Goal == ToRestarted {
			t.begin(Stopping, DoStop)
			return
		}
		t.Goal = ToRunning
		t.begin(Booting, DoBoot)
		return
	case ToReverted:
		t.Goal = ToRunning
		t.begin(Booting, DoRevert)
		return
	case Free:
	}
	switch {
	case t.Waiting == 0:
	case !t.Enabled:
		t.answerHolds(ErrDisabled)
	case t.Barred:
		t.answerHolds(ErrBarred)
	default:
		t.begin(Booting, DoBoot)
	}
}

// capture begins to take the state that the instance has settled in.
func (t *transition) capture() {
	t.Captures--
	t.Back = t.State
	t.begin(Capturing, DoCapture)
}

func (t *transition) refuseCaptures(err error) {
	if t.Captures == 0 {
		return
	}
	t.Captures = 0
	t.effects = append(t.effects, Effect{RefuseCaptures, err})
}
