package main

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/pflag"

	"p2pagent/internal/desired"
	"p2pagent/internal/doctor"
	"p2pagent/pkg/agent"
	"p2pagent/pkg/hub"
)

// settings are options with the origin of each.
type settings struct {
	options
	flags   *pflag.FlagSet
	models  []desired.Model   // of the file alone
	origins map[string]string // by name
	env     func(string) (string, bool)
	place   place
}

// configError is every fault of a configuration at once.
type configError struct{ faults []error }

func (e *configError) Error() string { return errors.Join(e.faults...).Error() }

func faultsOf(faults []error) error {
	faults = dropNil(faults)
	if len(faults) == 0 {
		return nil
	}
	e := &configError{faults}
	return &agent.Error{Kind: agent.Usage, Message: e.Error(), Err: e}
}

func dropNil(in []error) []error {
	var out []error
	for _, err := range in {
		if err != nil {
			out = append(out, err)
		}
	}
	return out
}

// newSettings defines the flags on a command's flag set.
func (p *program) newSettings(fs *pflag.FlagSet) *settings {
	s := &settings{flags: fs, origins: map[string]string{}, env: p.env}
	s.define(fs)
	s.place = place{get: s.get, root: os.Getuid() == 0}
	return s
}

// again reads every source anew: the flags as they were given, the file as it is
// now.
func (s *settings) again() (*settings, error) {
	n := &settings{flags: pflag.NewFlagSet("", pflag.ContinueOnError), origins: map[string]string{}, env: s.env, place: s.place}
	n.define(n.flags)
	for _, name := range s.names() {
		if f := s.flags.Lookup(name); f.Changed {
			if err := n.flags.Set(name, f.Value.String()); err != nil {
				return nil, fmt.Errorf("--%s: %w", name, err)
			}
		}
	}
	if err := n.load(); err != nil {
		return nil, err
	}
	return n, cmp.Or(n.checkKey(), n.checkHub())
}

// differences names the options whose values differ.
func (s *settings) differences(o *settings) []string {
	out := []string{}
	for _, name := range s.names() {
		if s.flags.Lookup(name).Value.String() != o.flags.Lookup(name).Value.String() {
			out = append(out, name)
		}
	}
	return out
}

func (s *settings) get(name string) string {
	v, _ := s.env(name)
	return v
}

// load gives every option its value: flag, P2PAGENT_*, file, the fleet's own
// variables, default. Then it checks them all. Nothing but the file is touched,
// and all faults are reported together, as kind Usage.
func (s *settings) load() error {
	var faults []error
	file, err := s.readFile()
	faults = append(faults, err...)
	s.models = file.models
	for _, name := range s.names() {
		faults = append(faults, s.set(name, file))
	}
	s.Offline = truth(s.get("HF_HUB_OFFLINE"))
	if len(dropNil(faults)) > 0 {
		return faultsOf(faults)
	}
	faults = append(faults, s.fill())
	return faultsOf(append(faults, s.check()...))
}

// names lists the options in the order of their definition.
func (s *settings) names() []string {
	var out []string
	var o options
	fs := pflag.NewFlagSet("", pflag.ContinueOnError)
	fs.SortFlags = false
	o.define(fs)
	fs.VisitAll(func(f *pflag.Flag) { out = append(out, f.Name) })
	return out
}

// showOnly leaves the other flags out of help; they work all the same.
func (s *settings) showOnly(names ...string) {
	for _, name := range s.names() {
		s.flags.Lookup(name).Hidden = !slices.Contains(names, name)
	}
}

// set takes the first source that has the option.
func (s *settings) set(name string, file configFile) error {
	f := s.flags.Lookup(name)
	if f.Changed {
		s.origins[name] = "flag --" + name
		return nil
	}
	if v, ok := s.env(envName(name)); ok && v != "" {
		s.origins[name] = "env " + envName(name)
		return wrapFault(envName(name), f.Value.Set(v))
	}
	if entry, ok := file.entries[name]; ok && !entry.bad {
		s.origins[name] = "file " + entry.at
		return wrapFault(entry.at+": "+name, f.Value.Set(entry.text))
	}
	for _, variable := range fleetVariables[name] {
		if v, ok := s.env(variable); ok && v != "" {
			s.origins[name] = "env " + variable
			return wrapFault(variable, f.Value.Set(expandHome(v, s.get("HOME"))))
		}
	}
	s.origins[name] = "default"
	return nil
}

// wrapFault says where a bad value stands.
func wrapFault(where string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", where, inOurWords(err))
}

// inOurWords says what was wanted of a number or a switch that strconv refused.
func inOurWords(err error) error {
	n, ok := errors.AsType[*strconv.NumError](err)
	switch {
	case !ok:
		return err
	case n.Func == "ParseBool":
		return fmt.Errorf("want %s, got %q", kindText["bool"], n.Num)
	case errors.Is(n.Err, strconv.ErrRange):
		return fmt.Errorf("%s is too large", n.Num)
	}
	return fmt.Errorf("want %s, got %q", kindText["int"], n.Num)
}

func envName(name string) string {
	return "P2PAGENT_" + strings.ToUpper(strings.ReplaceAll(name, "-", "_"))
}

// truth reads a switch as huggingface_hub does.
func truth(s string) bool {
	switch strings.ToUpper(s) {
	case "1", "ON", "YES", "TRUE":
		return true
	}
	return false
}

// fill puts in the defaults that depend on other options, and makes paths
// absolute.
func (s *settings) fill() error {
	if s.HubCache == "" {
		dir, err := s.place.hubCache()
		if err != nil {
			return err
		}
		s.HubCache = dir
	}
	if s.StateDir == "" {
		s.StateDir = s.place.stateDir(s.HubCache)
	}
	if s.HubEndpoint == "" {
		s.HubEndpoint = hub.DefaultEndpoint
	}
	if s.Bind == "" {
		s.Bind = "0.0.0.0"
	}
	s.fillMarks()
	return errors.Join(absolute(&s.HubCache), absolute(&s.StateDir), absolute(&s.SwarmKeyFile), absolute(&s.Socket))
}

// fillMarks: a quota alone is enough to have the agent keep to it.
func (s *settings) fillMarks() {
	if s.MaxCache > 0 && s.HighWatermark == 0 {
		s.HighWatermark = defaultHighMark
	}
	if s.HighWatermark > 0 && s.LowWatermark == 0 {
		s.LowWatermark = max(1, s.HighWatermark-markDistance)
	}
}

// checkMarks finds marks that make no sense.
func (s *settings) checkMarks() error {
	switch {
	case s.HighWatermark < 0 || s.HighWatermark > 100:
		return s.fault("high-watermark", "%d, want 0 to 100 percent", s.HighWatermark)
	case s.HighWatermark == 0 && s.LowWatermark != 0:
		return s.fault("low-watermark", "there is no high one: set --high-watermark or --max-cache")
	case s.HighWatermark > 0 && (s.LowWatermark < 1 || s.LowWatermark >= s.HighWatermark):
		return s.fault("low-watermark", "%d, want 1 to below the high one, %d", s.LowWatermark, s.HighWatermark)
	}
	return nil
}

func absolute(path *string) (err error) {
	if *path != "" {
		*path, err = filepath.Abs(*path)
	}
	return err
}

// check finds what can't work, each fault in a line of its own.
func (s *settings) check() []error {
	faults := []error{
		s.port("gossip-port", s.GossipPort), s.port("swarm-port", s.SwarmPort),
		s.ip("bind", s.Bind), s.ip("advertise", s.Advertise), s.endpoint(), s.gatewayFault(), s.openFault(),
	}
	if s.GossipPort == s.SwarmPort && s.GossipPort != 0 {
		faults = append(faults, s.fault("swarm-port", "%d is the gossip port too", s.SwarmPort))
	}
	if s.Fetchers < 1 {
		faults = append(faults, s.fault("fetchers", "%d, want at least 1", s.Fetchers))
	}
	if s.Ranges < 1 {
		faults = append(faults, s.fault("ranges", "%d, want at least 1", s.Ranges))
	}
	if s.Insecure && s.SwarmKeyFile != "" {
		faults = append(faults, s.fault("insecure", "there is a swarm key file; choose one of the two"))
	}
	if within(s.StateDir, s.HubCache) {
		faults = append(faults, s.fault("state-dir", "%s lies inside the hub cache %s", s.StateDir, s.HubCache))
	}
	faults = append(faults, s.listener("metrics-addr", s.MetricsAddr), s.checkMarks())
	for _, j := range s.Join {
		faults = append(faults, s.member(j))
	}
	return faults
}

func (s *settings) fault(name, format string, args ...any) error {
	return fmt.Errorf("%s (%s): %w", name, s.origins[name], fmt.Errorf(format, args...))
}

func (s *settings) port(name string, n int) error {
	if n < 0 || n > 65535 {
		return s.fault(name, "%d, want 0 to 65535", n)
	}
	return nil
}

func (s *settings) ip(name, text string) error {
	if _, err := netip.ParseAddr(text); text != "" && err != nil {
		return s.fault(name, "%q is no IP address", text)
	}
	return nil
}

// listener is for what other machines may reach when the operator says so.
func (s *settings) listener(name, text string) error {
	if text == "" {
		return nil
	}
	_, port, err := net.SplitHostPort(text)
	if n, perr := strconv.Atoi(port); err != nil || perr != nil || n < 0 || n > 65535 {
		return s.fault(name, "%q, want host:port", text)
	}
	return nil
}

func (s *settings) endpoint() error {
	u, err := url.Parse(s.HubEndpoint)
	if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" {
		return s.fault("hub-endpoint", "want http://host or https://host")
	}
	return nil
}

func (s *settings) member(join string) error {
	host, port, err := net.SplitHostPort(join)
	n, perr := strconv.Atoi(port)
	if err != nil || perr != nil || host == "" || n < 1 || n > 65535 {
		return s.fault("join", "%q, want host:port", join)
	}
	return nil
}

// checkKey is for members that take part in a swarm: closed is the default.
func (s *settings) checkKey() error {
	if s.SwarmKeyFile != "" || s.Insecure {
		return nil
	}
	return &agent.Error{Kind: agent.Usage, Message: "no swarm key: name one with --swarm-key-file",
		Hint: "make it once with `p2pagent keygen FILE` and give every node a copy; --insecure runs without"}
}

// checkHub is for agents that would fetch from their own gateway: clients of the
// node have it as HF_ENDPOINT, the agent must not.
func (s *settings) checkHub() error {
	if !s.asksHub() || !doctor.SameHost(s.HubEndpoint, s.gatewayAddr()) {
		return nil
	}
	return &agent.Error{Kind: agent.Usage, Message: s.fault("hub-endpoint", "%s is the gateway of this agent itself", s.HubEndpoint).Error(),
		Hint: "unset HF_ENDPOINT for the agent, or name the Hub with --hub-endpoint"}
}
