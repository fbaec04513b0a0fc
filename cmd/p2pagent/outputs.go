package main

import (
	"encoding/json"

	"p2pagent/internal/doctor"
	"p2pagent/internal/rollout"
	"p2pagent/pkg/agent"
)

// What commands print with --format json. Each has a JSON Schema in docs/schemas,
// made of these types by a test. Fields are added, never changed or taken away, as
// long as SchemaVersion stays.

// versioned is the first field of every object.
type versioned struct {
	SchemaVersion int `json:"schema_version"`
}

var version1 = versioned{agent.SchemaVersion}

// typed is the head of an object of a command that prints several, one on each line.
type typed struct {
	versioned
	Type string `json:"type" jsonschema:"enum=progress,enum=result,enum=error"`
}

var (
	progressHead = typed{version1, "progress"}
	resultHead   = typed{version1, "result"}
	errorHead    = typed{version1, "error"}
)

type (
	// fetchProgress and fetchResult are of fetch and seed.
	fetchProgress struct {
		typed
		agent.Job
	}
	fetchResult struct {
		typed
		agent.Result
	}
	verifyResult struct {
		typed
		Ref      string          `json:"ref"`
		Problems []agent.Problem `json:"problems"`
	}
	waitResult struct {
		typed
		agent.Snapshot
	}
	// rolloutTable is of progress, and of the result.
	rolloutTable struct {
		typed
		rollout.Table
	}
	// errorOutput is the last object of every command that fails.
	errorOutput struct {
		typed
		Code  int       `json:"code"` // exit code
		Error errorBody `json:"error"`
	}
	errorBody struct {
		Kind    string `json:"kind"`
		Message string `json:"message"`
		Hint    string `json:"hint,omitempty"`
	}
)

type (
	jobsOutput struct {
		versioned
		Jobs []agent.Job `json:"jobs"`
	}
	peersOutput struct {
		versioned
		Peers []agent.Peer `json:"peers"`
	}
	snapshotsOutput struct {
		versioned
		Snapshots []agent.Snapshot `json:"snapshots"`
	}
	snapshotOutput struct {
		versioned
		agent.Snapshot
		Contents []agent.File `json:"contents"`
	}
	checksOutput struct {
		versioned
		Checks []doctor.Result `json:"checks"`
	}
	envOutput struct {
		versioned
		Env map[string]string `json:"env"`
	}
	pinOutput struct {
		versioned
		Pin agent.Pinned `json:"pin"`
	}
	reloadOutput struct {
		versioned
		agent.Reloaded
	}
	removedOutput struct {
		versioned
		Removed agent.Removed `json:"removed"`
	}
	prunedOutput struct {
		versioned
		Pruned agent.Pruned `json:"pruned"`
	}
	configOutput struct {
		versioned
		Settings map[string]printedSetting `json:"settings"`
		Offline  bool                      `json:"offline"`
		Token    string                    `json:"token"` // whether there is one
	}
	printedSetting struct {
		Value  string `json:"value"`
		Origin string `json:"origin"`
	}
)

// printJSON writes one object on a line of its own.
func (p *program) printJSON(v any) error { return json.NewEncoder(p.stdout).Encode(v) }
