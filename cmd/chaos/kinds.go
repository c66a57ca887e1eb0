//go:build linux

package main

import (
	"context"
	"fmt"
	"math/rand"
	"syscall"
	"time"

	"github.com/faceid-ingest/faceid-ingest/pipeline/faceid/faceidtest"
	"github.com/faceid-ingest/faceid-ingest/sinks/cos/costest"
)

// kinds are all faults but the kills, which come at a fixed interval.
func (s *site) kinds() []kind {
	list := s.workerKinds()
	list = append(list, s.serverKinds()...)
	for _, service := range services() {
		list = append(list, s.wireKinds(service)...)
	}
	list = append(list, s.apiKinds()...)
	list = append(list, s.cosKinds()...)
	return append(list, s.hookKinds()...)
}

// kill is the kill -9 of one worker.
func (s *site) kill() kind {
	return kind{name: "worker killed", draw: func(random *rand.Rand) drawn {
		w := s.workers[random.Intn(len(s.workers))]
		return drawn{target: "kill", detail: w.name, begin: momentary(func() { s.kills.Add(1); w.kill() })}
	}}
}

// killLeader is the kill -9 of the node that leads the stream of events.
func (s *site) killLeader() kind {
	return kind{name: "stream leader killed", shortest: time.Second, longest: 2 * time.Second, draw: func(*rand.Rand) drawn {
		return drawn{target: "nats", begin: func(ctx context.Context) (func(context.Context) error, error) {
			bounded, cancel := context.WithTimeout(ctx, 2*time.Second)
			defer cancel()
			node, err := s.nats.leader(bounded, s.js)
			if err != nil {
				node = 0 // there is no leader just now; another kill does not make that better
			}
			up := s.nats.restart(node, syscall.SIGKILL)
			return func(context.Context) error { up(); return nil }, nil
		}}
	}}
}

func (s *site) workerKinds() []kind {
	one := func(random *rand.Rand) (*worker, drawn) {
		w := s.workers[random.Intn(len(s.workers))]
		return w, drawn{target: w.name, detail: w.name}
	}
	return []kind{
		{name: "rolling restart", shortest: time.Second, longest: time.Second, draw: func(*rand.Rand) drawn {
			return drawn{target: "roll", begin: func(ctx context.Context) (func(context.Context) error, error) {
				for _, w := range s.workers {
					w.terminate()
					if err := sleepUntil(ctx, time.Now().Add(rollPause)); err != nil {
						return nil, err
					}
				}
				return func(context.Context) error { return nil }, nil
			}}
		}},
		// Longer than ack_wait whatever the pace: it wakes up with events in its
		// hands that others have taken.
		{name: "worker frozen", shortest: s.beyondAckWait(), longest: s.beyondAckWait(), draw: func(random *rand.Rand) drawn {
			w, d := one(random)
			d.begin = lasting(func() func() { w.freeze(); return w.thaw })
			return d
		}},
		{name: "worker cut off from NATS", shortest: s.beyondAckWait(), longest: s.beyondAckWait(), draw: func(random *rand.Rand) drawn {
			w, d := one(random)
			d.target = toNATS + " wire"
			d.begin = lasting(func() func() { return trouble{stall: true}.on(w.wires[toNATS]) })
			return d
		}},
	}
}

// rollPause is the time between two workers of a rolling restart.
const rollPause = 500 * time.Millisecond

// beyondAckWait is longer than the workers' ack_wait of 3 s.
func (s *site) beyondAckWait() time.Duration {
	return time.Duration(float64(4500*time.Millisecond) / s.plan.pace)
}

func (s *site) serverKinds() []kind {
	node := func(name string, signal syscall.Signal) kind {
		return kind{name: name, shortest: time.Second, longest: 3 * time.Second, draw: func(random *rand.Rand) drawn {
			n := random.Intn(len(s.nats.nodes))
			return drawn{target: "nats", detail: s.nats.nodes[n].name, begin: lasting(func() func() { return s.nats.restart(n, signal) })}
		}}
	}
	return []kind{
		node("nats restarted", syscall.SIGTERM),
		node("nats killed", syscall.SIGKILL),
		{name: "postgres crashed", shortest: time.Second, longest: 3 * time.Second, draw: func(*rand.Rand) drawn {
			return drawn{target: "postgres", begin: func(ctx context.Context) (func(context.Context) error, error) {
				return s.postgres.Restart, s.postgres.Crash(ctx)
			}}
		}},
		{name: "small disk full", shortest: 2 * time.Second, longest: 5 * time.Second, draw: func(*rand.Rand) drawn {
			return drawn{target: "disk", begin: func(context.Context) (func(context.Context) error, error) {
				free, err := s.disk.fill()
				return func(context.Context) error { return free() }, err
			}}
		}},
	}
}

// on makes trouble on several proxies at once.
func (t trouble) on(proxies []*proxy) (end func()) {
	ends := make([]func(), len(proxies))
	for i, p := range proxies {
		ends[i] = p.set(t)
	}
	return func() {
		for _, end := range ends {
			end()
		}
	}
}

// wireKinds are what networks do, to all wires to a service.
func (s *site) wireKinds(service string) []kind {
	of := func(name string, draw func(*rand.Rand) (string, trouble, bool)) kind {
		return kind{name: service + " " + name, shortest: time.Second, longest: 4 * time.Second, draw: func(random *rand.Rand) drawn {
			detail, t, reset := draw(random)
			return drawn{target: service + " wire", detail: detail, begin: lasting(func() func() {
				wires := s.wiresTo(service)
				end := t.on(wires)
				if reset {
					for _, p := range wires {
						p.reset()
					}
				}
				return end
			})}
		}}
	}
	return []kind{
		of("cut in the middle", func(random *rand.Rand) (string, trouble, bool) {
			n := 1 + random.Intn(1<<(4+random.Intn(14)))
			return fmt.Sprintf("after %d bytes", n), trouble{cutAfter: n}, false
		}),
		of("reset and refused", func(*rand.Rand) (string, trouble, bool) { return "", trouble{refuse: true}, true }),
		of("stalled", func(*rand.Rand) (string, trouble, bool) { return "", trouble{stall: true}, false }),
		of("delayed", func(random *rand.Rand) (string, trouble, bool) {
			d := time.Duration(20+random.Intn(280)) * time.Millisecond
			return d.String(), trouble{delay: d}, false
		}),
	}
}

func (s *site) apiKinds() []kind {
	of := func(name string, f func(*rand.Rand) faceidtest.Fault) kind {
		return kind{name: "faceid " + name, shortest: time.Second, longest: 4 * time.Second, draw: func(random *rand.Rand) drawn {
			f := f(random)
			d := drawn{target: "api", begin: lasting(func() func() { return s.standIns.api.Fail(f) })}
			if f.CutAt > 0 {
				d.detail = fmt.Sprintf("at %d bytes", f.CutAt)
			}
			return d
		}}
	}
	fixed := func(name string, f faceidtest.Fault) kind {
		return of(name, func(*rand.Rand) faceidtest.Fault { return f })
	}
	return []kind{
		fixed("answers 502", faceidtest.Fault{Status: 502}),
		fixed("throttles", faceidtest.Fault{Code: "RequestLimitExceeded"}),
		fixed("has an internal error", faceidtest.Fault{Code: "InternalError"}),
		fixed("hangs", faceidtest.Fault{Hang: true}),
		fixed("drops connections", faceidtest.Fault{Drop: true}),
		fixed("answers HTML", faceidtest.Fault{Garbage: "<html><body>maintenance</body></html>"}),
		fixed("answers half of a JSON", faceidtest.Fault{Garbage: `{"Response":{"Text":{"ErrCode":0,"Name":"` + markName}),
		of("cuts answers", func(random *rand.Rand) faceidtest.Fault {
			return faceidtest.Fault{CutAt: 1 + random.Int63n(1<<(6+random.Intn(12)))}
		}),
	}
}

func (s *site) cosKinds() []kind {
	of := func(name string, f costest.Fault) kind {
		return kind{name: "cos " + name, shortest: time.Second, longest: 4 * time.Second, draw: func(*rand.Rand) drawn {
			return drawn{target: "cos", begin: lasting(func() func() { return s.standIns.cos.Inject(f) })}
		}}
	}
	return []kind{
		of("answers 503", costest.Fault{Status: 503, Code: "SlowDown"}),
		of("drops connections", costest.Fault{Drop: true}),
		of("does it and loses the answer", costest.Fault{LoseAnswer: true}),
		of("hangs", costest.Fault{Hang: true}),
		of("cuts downloads", costest.Fault{CutBody: 300}),
		of("fails in a 200", costest.Fault{CopyError: true}),
	}
}

func (s *site) hookKinds() []kind {
	of := func(name string, f hookFault) kind {
		return kind{name: "webhook " + name, shortest: time.Second, longest: 4 * time.Second, draw: func(*rand.Rand) drawn {
			return drawn{target: "hook", begin: lasting(func() func() { return s.standIns.hook.fail(f) })}
		}}
	}
	return []kind{
		of("answers 500", hookFault{status: 500}),
		of("throttles", hookFault{status: 429}),
		of("is too slow", hookFault{delay: 3 * time.Second}),
		of("takes it and breaks off", hookFault{lose: true}),
	}
}
