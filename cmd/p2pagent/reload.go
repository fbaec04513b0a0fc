package main

import (
	"context"
	"fmt"
	"os"
	"strings"

	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/spf13/cobra"

	"p2pagent/pkg/agent"
)

const reloadLong = `Have the agent read its configuration file again, as SIGHUP does, and say what
changed. Models that were added to the list are fetched, branches in it are looked
up again; models that left it are not kept any more, and stay in the cache.

Other settings count after a restart; those that changed are named. A file that
makes no sense changes nothing: exit code 2, with every fault.`

func (p *program) reloadCmd() *cobra.Command {
	cmd := p.query("reload", "have the agent read its configuration again", func(ctx context.Context, s *session, c *agent.Client) error {
		r, err := c.Reload(ctx)
		if err != nil {
			return err
		}
		switch s.format {
		case formatJSON:
			return p.printJSON(reloadOutput{version1, r})
		case formatQuiet:
			return nil
		}
		_, err = fmt.Fprint(p.stdout, reloadText(r))
		return err
	})
	cmd.Long = reloadLong
	return cmd
}

func reloadText(r agent.Reloaded) string {
	var out strings.Builder
	for _, row := range []struct {
		what string
		refs []string
	}{{"added %s", r.Models.Added}, {"changed %s", r.Models.Changed}, {"removed %s: not kept any more; `p2pagent rm` deletes it", r.Models.Removed}} {
		for _, ref := range row.refs {
			fmt.Fprintf(&out, row.what+"\n", clean(ref))
		}
	}
	fmt.Fprintf(&out, "%s unchanged\n", counted(len(r.Models.Unchanged), "model"))
	if len(r.Restart) > 0 {
		fmt.Fprintf(&out, "changed, and count after a restart: %s\n", clean(strings.Join(r.Restart, ", ")))
	}
	return out.String()
}

// reload reads the settings again and keeps the models that are named now. systemd
// hears when it begins and when it is over.
func (m *member) reload(context.Context) (agent.Reloaded, error) {
	m.reloading.Lock()
	defer m.reloading.Unlock()
	notifySystemd(daemon.SdNotifyReloading + "\n" + daemon.SdNotifyMonotonicUsec())
	defer notifySystemd(daemon.SdNotifyReady)
	fresh, err := m.settings.again()
	if err != nil {
		m.log.Warn("configuration not read again, the old one stands", "error", err)
		return agent.Reloaded{}, &agent.Error{Kind: classify(err), Message: faultText(err), Err: err, Hint: "nothing has changed: the agent goes on with what it had"}
	}
	r := agent.Reloaded{Restart: m.settings.differences(fresh)}
	if r.Models, err = m.desire(fresh.models); err != nil {
		return agent.Reloaded{}, err
	}
	m.log.Info("configuration read again", "added", r.Models.Added, "removed", r.Models.Removed, "changed", r.Models.Changed,
		"unchanged", len(r.Models.Unchanged), "count_after_restart", r.Restart)
	return r, nil
}

// reloadAt reloads at every signal; what came of it is in the log.
func (m *member) reloadAt(ctx context.Context, hangups <-chan os.Signal) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-hangups:
			m.reload(ctx)
		}
	}
}
