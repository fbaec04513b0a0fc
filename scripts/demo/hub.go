package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"
)

// hub is hubserver as a child process.
type hub struct {
	*process
	endpoint, control string
}

// stats are the figures of hubserver's /stats that the demo prints.
type stats struct {
	Body  int64            `json:"body_bytes"`
	Calls map[string]int64 `json:"calls"`
}

func startHub(ctx context.Context, work, ref string) (*hub, error) {
	ready, out := io.Pipe()
	cmd := child(work, environ(false), work+"/bin/hubserver", "-listen", "127.0.0.1:0", "-cdn", "127.0.0.1:0", "-control", "127.0.0.1:0",
		"-model", ref+"="+work+"/model")
	p, err := start("hubserver", work+"/hub.log", out, cmd)
	if err != nil {
		return nil, err
	}
	h := &hub{process: p}
	first := make(chan string, 1)
	go func() {
		line, _ := bufio.NewReader(ready).ReadString('\n') // an early end shows as a line that does not parse
		first <- line
		_, _ = io.Copy(io.Discard, ready)
	}()
	select {
	case line := <-first:
		return h, h.parse(line)
	case <-p.ended:
		return h, p.alive()
	case <-time.After(time.Minute):
		return h, fmt.Errorf("hubserver is not ready after a minute: %s", lastWords(p.log))
	case <-ctx.Done():
		return h, context.Cause(ctx)
	}
}

// parse reads "ready endpoint=URL cdn=URL control=URL".
func (h *hub) parse(line string) error {
	for word := range strings.FieldsSeq(line) {
		switch key, value, _ := strings.Cut(word, "="); key {
		case "endpoint":
			h.endpoint = value
		case "control":
			h.control = value
		}
	}
	if h.endpoint == "" || h.control == "" {
		return fmt.Errorf("hubserver said %q instead of where it serves", strings.TrimSpace(line))
	}
	return nil
}

// hubRate is what the Hub sends a second on each body. Without a limit the node
// that is first by a tenth of a second fetches all, and there is no swarm to see.
const hubRate = 25 << 20

func (h *hub) slowDown(ctx context.Context) error {
	resp, err := h.ask(ctx, http.MethodPost, fmt.Sprintf("/rate?bytes=%d", hubRate))
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode >= http.StatusMultipleChoices {
		return fmt.Errorf("hubserver answers %s to a rate", resp.Status)
	}
	return nil
}

func (h *hub) stats(ctx context.Context) (s stats, err error) {
	resp, err := h.ask(ctx, http.MethodGet, "/stats")
	if err != nil {
		return s, err
	}
	defer resp.Body.Close()
	return s, json.NewDecoder(resp.Body).Decode(&s)
}

func (h *hub) ask(ctx context.Context, method, path string) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, h.control+path, nil)
	if err != nil {
		return nil, err
	}
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 10 * time.Second} // no proxy: it is on loopback
	return client.Do(req)
}
