// Package desired keeps models on this node: those that the configuration names,
// and those that a rollout told this node to hold.
//
// A Keeper fetches each until it is here, a few at a time, and tries again after a
// pause when that fails; one that can't be had holds up no other. What a branch
// means is asked anew at the start, when the list is read again, and as often as
// the model says (Refresh): at multiples of that time since 1970, so that all
// members ask in the same moment and one of them asks the Hub for all.
//
// A model that leaves the list is not kept any more; nothing is deleted. What
// rollouts told is durable in a Notebook. While a rollout stands, the configuration's
// own word on the same reference rests.
//
// The package knows no disk, no swarm and no upstream: it is handed functions.
package desired
