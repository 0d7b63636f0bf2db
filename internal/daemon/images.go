package daemon

import (
	"context"
	"sync"

	"github.com/xfeldman/aegisvm/internal/image"
	"github.com/xfeldman/aegisvm/internal/instance"
)

// openImages makes the store of images. It asks the core, which is made later, who
// stands on them.
func (d *daemon) openImages() (err error) {
	o := image.Options{
		Home: d.Config.Home, Log: d.Log, Default: d.Config.Image, Quota: d.Config.ImageQuota,
		Users: d.imageUsers,
	}
	if ground, ok := d.Ground.(interface{ Forget(image string) }); ok {
		o.Forget = ground.Forget
	}
	if d.images, err = image.Open(o); err == nil {
		d.parts.push("images", func(context.Context) error { d.images.Close(); return nil })
	}
	return err
}

// imageUsers tells what stands on which image, by the image's id: instances by their
// handles, and snapshots.
func (d *daemon) imageUsers() (map[string][]string, error) {
	snapshots, err := d.set.Snapshots(context.Background())
	if err != nil {
		return nil, err
	}
	users := map[string][]string{}
	for _, v := range d.set.List() {
		if id := v.Spec.Base.ID; id != "" {
			users[id] = append(users[id], v.Spec.Handle)
		}
	}
	for _, s := range snapshots {
		if id := s.Origin.Spec.Base.ID; id != "" {
			users[id] = append(users[id], "snapshot "+s.Name)
		}
	}
	return users, nil
}

// collectImages removes images that nobody needs, now and whenever an instance is
// deleted.
func (d *daemon) collectImages(ctx context.Context) {
	changes, stop := d.set.Watch()
	ctx = context.WithoutCancel(ctx)
	wanted := make(chan struct{}, 1)
	wanted <- struct{}{}
	var wg sync.WaitGroup
	wg.Go(func() { // apart: who watches must keep up
		defer close(wanted)
		for c := range changes {
			if c.To != instance.Deleted {
				continue
			}
			select {
			case wanted <- struct{}{}:
			default: // one is about to begin
			}
		}
	})
	wg.Go(func() {
		for range wanted {
			d.images.Collect(ctx)
		}
	})
	d.parts.push("collection of images", func(context.Context) error {
		stop()
		wg.Wait()
		return nil
	})
}
