// Package kube is what an agent in a Kubernetes pod needs and has nowhere else: the
// folder of the cache, given to the agent's user, and labels on the node for what
// is complete on it.
package kube
