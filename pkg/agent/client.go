package agent

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"sync/atomic"
	"time"

	"p2pagent/internal/rollout"
	"p2pagent/pkg/pieces"
)

// Client talks to an agent over its control socket. Its methods do what those of
// Agent do; an error has the kind that the agent gave it, or NoAgent when there
// was no agent, or none any more.
type Client struct {
	path string
	http *http.Client
	pid  atomic.Int32 // of the agent, once a connection was made
}

// maxLine bounds one line of an answer; a job with thousands of peers is far
// below it.
const maxLine = 8 << 20

// silence is how long an agent that owes a line every heartbeat may be silent.
const silence = 15 * heartbeat

// NewClient returns a client of the agent on the socket at path. It connects
// when it is used.
func NewClient(path string) *Client {
	c := &Client{path: path}
	c.http = &http.Client{Transport: &http.Transport{
		DialContext: c.dial, DisableKeepAlives: true, ResponseHeaderTimeout: 30 * time.Second,
	}}
	return c
}

func (c *Client) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	conn, err := (&net.Dialer{Timeout: 5 * time.Second}).DialContext(ctx, "unix", c.path)
	if err != nil {
		return nil, err
	}
	if cred := peerOf(conn); cred != nil {
		c.pid.Store(cred.Pid)
	}
	return conn, nil
}

// where names the agent in errors: one that is stuck can be found by its process id.
func (c *Client) where() string {
	if pid := c.pid.Load(); pid > 0 {
		return fmt.Sprintf("%s (pid %d)", c.path, pid)
	}
	return c.path
}

// Status asks the agent how it is.
func (c *Client) Status(ctx context.Context) (Status, error) {
	var out Status
	return out, c.get(ctx, "/v1/status", &out)
}

// Jobs asks for the running jobs and the last ones that ended.
func (c *Client) Jobs(ctx context.Context) ([]Job, error) {
	var out jobsAnswer
	err := c.get(ctx, "/v1/jobs", &out)
	return out.Jobs, err
}

// Peers asks for the other members.
func (c *Client) Peers(ctx context.Context) ([]Peer, error) {
	var out peersAnswer
	err := c.get(ctx, "/v1/peers", &out)
	return out.Peers, err
}

// List asks for the snapshots in the cache.
func (c *Client) List(ctx context.Context) ([]Snapshot, error) {
	var out snapshotsAnswer
	err := c.get(ctx, "/v1/snapshots", &out)
	return out.Snapshots, err
}

// Show asks for one snapshot and its files.
func (c *Client) Show(ctx context.Context, ref pieces.Ref) (Snapshot, []File, error) {
	var out snapshotAnswer
	err := c.get(ctx, "/v1/snapshot?ref="+url.QueryEscape(ref.String()), &out)
	return out.Snapshot, out.Contents, err
}

// Remove has the agent take a snapshot out of the cache.
func (c *Client) Remove(ctx context.Context, r RemoveRequest) (Removed, error) {
	var out removeAnswer
	err := c.call(ctx, http.MethodPost, "/v1/remove", removeCall{r.Ref.String(), r.DryRun, r.Force}, &out)
	return out.Removed, err
}

// Prune has the agent evict snapshots.
func (c *Client) Prune(ctx context.Context, r PruneRequest, watch func(Verdict)) (Pruned, error) {
	line, err := c.stream(ctx, "/v1/prune", r, func(l streamLine) {
		if watch != nil && l.Verdict != nil {
			watch(*l.Verdict)
		}
	})
	if line.Pruned == nil {
		return Pruned{}, err
	}
	return *line.Pruned, err
}

// Pin has the agent keep what the ref means: as Agent.Pin for ByCommand, but the
// ref must be in the cache.
func (c *Client) Pin(ctx context.Context, ref pieces.Ref) (Pinned, error) {
	return c.pin(ctx, "/v1/pin", ref)
}

// Unpin has the agent end that.
func (c *Client) Unpin(ctx context.Context, ref pieces.Ref) (Pinned, error) {
	return c.pin(ctx, "/v1/unpin", ref)
}

func (c *Client) pin(ctx context.Context, path string, ref pieces.Ref) (Pinned, error) {
	var out pinAnswer
	err := c.call(ctx, http.MethodPost, path, pinCall{ref.String()}, &out)
	return out.Pinned, err
}

// Reload has the agent read its configuration again.
func (c *Client) Reload(ctx context.Context) (Reloaded, error) {
	var out reloadAnswer
	err := c.call(ctx, http.MethodPost, "/v1/reload", nil, &out)
	return out.Reloaded, err
}

// Rollout has the agent ask members to hold a snapshot; they go on when ctx ends
// first. watch, when not nil, is called about once a second.
func (c *Client) Rollout(ctx context.Context, r RolloutRequest, watch func(rollout.Table)) (rollout.Table, error) {
	call := rolloutCall{r.Ref.String(), r.Include, r.Exclude, r.Selector, r.Wait}
	line, err := c.stream(ctx, "/v1/rollout", call, func(l streamLine) {
		if watch != nil && l.Rollout != nil {
			watch(*l.Rollout)
		}
	})
	if err != nil || line.Rollout == nil {
		return rollout.Table{}, err
	}
	return *line.Rollout, nil
}

// Ensure has the agent run the job. The agent goes on with it when ctx ends
// first; Request.Tied has no meaning here.
func (c *Client) Ensure(ctx context.Context, r Request) (Result, error) {
	line, err := c.stream(ctx, "/v1/fetch", fetchCall{r.Ref.String(), r.Include, r.Exclude}, watching(r.Watch))
	return line.result(), err
}

// Seed has the agent hold and offer a snapshot. The agent must be able to read
// the folder.
func (c *Client) Seed(ctx context.Context, r SeedRequest) (Result, error) {
	line, err := c.stream(ctx, "/v1/seed", seedCall{r.Ref.String(), r.Dir}, watching(r.Watch))
	return line.result(), err
}

// Verify has the agent hash a snapshot again.
func (c *Client) Verify(ctx context.Context, ref pieces.Ref, watch func(Verifying)) ([]Problem, error) {
	line, err := c.stream(ctx, "/v1/verify", verifyCall{ref.String()}, func(l streamLine) {
		if watch != nil && l.Verify != nil {
			watch(*l.Verify)
		}
	})
	return line.Problems, err
}

// maxInside bounds what Inside returns.
const maxInside = 64 << 20

// Inside asks for what Server's Inside has under the name.
func (c *Client) Inside(ctx context.Context, name string) ([]byte, error) {
	resp, err := c.send(ctx, http.MethodGet, "/v1/inside/"+url.PathEscape(name), nil)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(io.LimitReader(resp.Body, maxInside))
	if err != nil {
		return nil, c.cutOff(ctx, err)
	}
	return raw, nil
}

func watching(watch func(Job)) func(streamLine) {
	return func(l streamLine) {
		if watch != nil && l.Job != nil {
			watch(*l.Job)
		}
	}
}

func (l streamLine) result() Result {
	if l.Result == nil {
		return Result{}
	}
	return *l.Result
}

func (c *Client) get(ctx context.Context, path string, into any) error {
	return c.call(ctx, http.MethodGet, path, nil, into)
}

func (c *Client) call(ctx context.Context, method, path string, body, into any) error {
	resp, err := c.send(ctx, method, path, body)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(io.LimitReader(resp.Body, 1<<30))
	if err != nil {
		return c.cutOff(ctx, err)
	}
	if err := json.Unmarshal(raw, into); err != nil {
		return Errorf(NoAgent, "read answer of the agent on %s: %w", c.path, err)
	}
	return nil
}

// send returns an answer that is no error; the caller closes its body.
func (c *Client) send(ctx context.Context, method, path string, body any) (*http.Response, error) {
	encoded, err := json.Marshal(body)
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://p2pagent"+path, bytes.NewReader(encoded))
	if err != nil {
		return nil, err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, c.unreachable(ctx, err)
	}
	if resp.StatusCode == http.StatusOK {
		return resp, nil
	}
	defer resp.Body.Close()
	var out errorAnswer
	raw, err := io.ReadAll(io.LimitReader(resp.Body, maxLine))
	if err != nil || json.Unmarshal(raw, &out) != nil || out.Error == nil {
		return nil, Errorf(NoAgent, "the agent on %s answered %s", c.path, resp.Status)
	}
	return nil, out.Error.unwire()
}

// stream calls each for every line but the last, which it returns.
func (c *Client) stream(ctx context.Context, path string, body any, each func(streamLine)) (streamLine, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	alarm := time.AfterFunc(silence, func() {
		cancel(Errorf(NoAgent, "the agent on %s said nothing for %v", c.where(), silence))
	})
	defer alarm.Stop()
	resp, err := c.send(ctx, http.MethodPost, path, body)
	if err != nil {
		return streamLine{}, err
	}
	defer resp.Body.Close()
	lines := bufio.NewScanner(resp.Body)
	lines.Buffer(nil, maxLine)
	for lines.Scan() {
		var l streamLine
		if err := json.Unmarshal(lines.Bytes(), &l); err != nil {
			return streamLine{}, Errorf(NoAgent, "read answer of the agent on %s: %w", c.path, err)
		}
		switch {
		case l.Type == typeResult:
			return l, nil
		case l.Type == typeError && l.Error != nil:
			return streamLine{}, l.Error.unwire()
		}
		alarm.Reset(silence)
		each(l)
	}
	return streamLine{}, c.cutOff(ctx, lines.Err())
}

// unreachable words why no agent answered. The caller's own deadline comes first.
func (c *Client) unreachable(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if e, ok := errors.AsType[*net.OpError](err); ok {
		err = e.Err // without the made-up http://p2pagent, and the path once
	}
	return &Error{Kind: NoAgent, Err: err, Message: fmt.Sprintf("no agent on %s: %v", c.where(), err)}
}

func (c *Client) cutOff(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err == nil {
		err = io.ErrUnexpectedEOF
	}
	return &Error{Kind: NoAgent, Err: err, Message: fmt.Sprintf("the agent on %s went away: %v", c.where(), err)}
}
