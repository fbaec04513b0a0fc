// Package census is what members say of themselves when somebody looks at the
// fleet: what each holds of which commit, and what upstream sent it for that.
//
// An answer is its member's word. It is shown to people and decides nothing.
package census
