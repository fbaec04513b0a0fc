package pieces

// Access says who may read a repository, as the Hub states it.
type Access string

// The values of Access. They are part of the records that members exchange.
const (
	AccessUnknown    Access = ""           // nobody has asked the Hub
	AccessOpen       Access = "open"       // everybody may
	AccessRestricted Access = "restricted" // gated or private: those whom the Hub lets
)

// ParseAccess reads a value; one that is not known is AccessUnknown.
func ParseAccess(s string) Access {
	switch a := Access(s); a {
	case AccessOpen, AccessRestricted:
		return a
	}
	return AccessUnknown
}
