package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"p2pagent/internal/kube"
	"p2pagent/pkg/agent"
)

const ownLong = `Give a folder to the agent's user if there is nothing in it: the kubelet makes a
hostPath for root. A folder that is the user's stays as it is; one of others with
something in it is an error, and is left alone, as is all that lies below.

An init container runs this as root with the capability CHOWN.`

const labelLong = `Label a Kubernetes node with what is complete on it, until a signal ends this:
p2pagent.dev/models--org--name=COMMIT. Pods choose nodes by that.

It asks the agent on its socket, and changes labels with the service account of the
pod that it runs in. Labels stay when it ends, as the models do.`

func (p *program) kubeCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use: "kube", Short: "what pods of the agent run besides it", Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error { return usagef("kube: own or label?") },
	}
	cmd.AddCommand(p.ownCmd(), p.labelCmd())
	return cmd
}

func (p *program) ownCmd() *cobra.Command {
	var user, group int
	cmd := &cobra.Command{
		Use: "own DIR", Short: "give a new folder to the agent's user", Long: ownLong, Args: cobra.ExactArgs(1),
		Example: "  p2pagent kube own /var/lib/p2pagent --user 65532 --group 65532",
		RunE: func(_ *cobra.Command, args []string) error {
			err := kube.Own(args[0], user, group)
			if e, ok := errors.AsType[*kube.OwnerError](err); ok {
				return &agent.Error{Kind: agent.Denied, Message: e.Error(), Err: err,
					Hint: fmt.Sprintf("run the agent as %d:%d (user and group of the chart), or `chown -R %d:%d %s` once on the node", e.UID, e.GID, user, group, e.Dir)}
			}
			return err
		},
	}
	cmd.Flags().IntVar(&user, "user", 0, "`number` of the agent's user")
	cmd.Flags().IntVar(&group, "group", 0, "`number` of its group")
	cmd.MarkFlagRequired("user")
	cmd.MarkFlagRequired("group")
	return cmd
}

func (p *program) labelCmd() *cobra.Command {
	var node string
	cmd := &cobra.Command{Use: "label", Short: "label the node with what is complete on it", Long: labelLong, Args: cobra.NoArgs}
	cmd.Flags().StringVar(&node, "node", "", "`name` of the node")
	cmd.MarkFlagRequired("node")
	s := p.newSettings(cmd.Flags())
	s.showOnly("socket", "config")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := s.load(); err != nil {
			return err
		}
		n, err := kube.InCluster(node, s.get)
		if err != nil {
			return err
		}
		log := newLog(p.stderr, s.LogFormat.text(p.terminal), nil)
		return kube.NewLabeller(kube.Options{Node: n, List: s.complete, Logger: log}).Run(cmd.Context())
	}
	return cmd
}

// complete asks the agent for the snapshots that are whole.
func (s *settings) complete(ctx context.Context) ([]kube.Snapshot, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, askWait, errSilentAgent)
	defer cancel()
	list, err := s.client().List(ctx)
	var out []kube.Snapshot
	for _, x := range list {
		if x.Complete {
			out = append(out, kube.Snapshot{Repo: x.Repo, Commit: x.Commit, At: x.RefTime})
		}
	}
	return out, err
}
