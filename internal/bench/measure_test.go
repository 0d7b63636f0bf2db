package bench

import (
	"context"
	"errors"
	"slices"
	"testing"

	"github.com/xfeldman/aegisvm/internal/fault"
)

// TestSamplesTakeTurns: each pair has one of both, and neither is always first.
func TestSamplesTakeTurns(t *testing.T) {
	var order string
	take := func(what string, v float64) func(context.Context) (float64, error) {
		return func(context.Context) (float64, error) {
			order += what
			return v, nil
		}
	}
	s := &sampler{figure: take("f", 2), floor: take("-", 1)}
	figures, floors, err := s.samples(t.Context(), 3)
	if err != nil || !slices.Equal(figures, []float64{2, 2, 2}) || !slices.Equal(floors, []float64{1, 1, 1}) {
		t.Errorf("%v, %v, %v", figures, floors, err)
	}
	if order != "f--ff-" {
		t.Errorf("the order was %s", order)
	}
}

func TestTake(t *testing.T) {
	broken := errors.New("broken")
	ended := 0
	m := measurement{name: "speed", unit: rate, floor: "light", n: 2, begin: func(context.Context, *world) (*sampler, error) {
		v := 0.0
		return &sampler{
			figure: func(context.Context) (float64, error) { v += 10; return v, nil },
			floor:  func(context.Context) (float64, error) { return 40, nil },
			end:    func(context.Context) error { ended++; return nil },
		}, nil
	}}
	r, err := m.take(t.Context(), nil)
	if err != nil || r.Median != 15 || r.P99 != 10 || r.N != 2 || r.Floor.Median != 40 || r.Floor.Name != "light" || r.Ratio() != 0.375 {
		t.Errorf("%+v, ratio %v, %v", r, r.Ratio(), err)
	}
	begin := m.begin
	m.begin = func(ctx context.Context, w *world) (*sampler, error) {
		s, err := begin(ctx, w)
		s.floor = func(context.Context) (float64, error) { return 0, broken }
		return s, err
	}
	if _, err := m.take(t.Context(), nil); !errors.Is(err, broken) || ended != 2 {
		t.Errorf("error %v, ended %d times", err, ended)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(broken)
	m.begin = begin
	if _, err := m.take(ctx, nil); !errors.Is(err, broken) || ended != 3 {
		t.Errorf("interrupted: error %v, ended %d times", err, ended)
	}
}

func TestChoose(t *testing.T) {
	if all, err := choose(nil); err != nil || len(all) != len(Names()) {
		t.Errorf("%d figures, %v", len(all), err)
	}
	some, err := choose([]string{"pause", "run_true"})
	if err != nil || len(some) != 2 || some[0].name != "run_true" || some[1].name != "pause" {
		t.Errorf("%v, %v", some, err)
	}
	if _, err := choose([]string{"run_false"}); fault.KindOf(err) != fault.Invalid || fault.HintOf(err) == "" {
		t.Errorf("a figure that there is not: %v", err)
	}
}
