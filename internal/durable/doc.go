// Package durable changes files below an *os.Root so that a change that was
// reported done is still there after a power cut.
//
// The order is always the same: the content is written aside, synced, moved to
// its name, and the folder that holds the name is synced. Measured on ext4 and
// XFS, leaving out the first sync lost every file that a power cut caught, and
// leaving out the second lost the names.
//
// A Root is the only way in: its mutating methods all pass through one Hook, so
// that a test can fail, stop or record any single step. A Stage holds what is
// not finished yet in one known folder, so that nothing half-made ever appears
// beside finished files and a crash leaves its remains in one place.
//
// A failed sync leaves the content unknown (Linux drops the dirty pages and
// reports the error once). Whoever gets a *SyncError must not publish what it
// covered, and must not try the sync again in the hope of a better answer.
package durable
