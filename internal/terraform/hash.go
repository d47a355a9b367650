package terraform

import (
	"crypto/md5"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"encoding/hex"
	"net/netip"

	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/function"
	"github.com/zclconf/go-cty/cty/gocty"
)

// sums are the hashes that Terraform has, by name.
func sums() map[string]func([]byte) []byte {
	return map[string]func([]byte) []byte{
		"md5":    func(b []byte) []byte { s := md5.Sum(b); return s[:] },
		"sha1":   func(b []byte) []byte { s := sha1.Sum(b); return s[:] },
		"sha256": func(b []byte) []byte { s := sha256.Sum256(b); return s[:] },
		"sha512": func(b []byte) []byte { s := sha512.Sum512(b); return s[:] },
	}
}

func hashFunctions() map[string]function.Function {
	out := map[string]function.Function{"uuidv5": applied("uuidv5")}
	for name, sum := range sums() {
		out[name] = ofText(func(a []string) (string, error) { return hex.EncodeToString(sum([]byte(a[0]))), nil }, "text")
		if name == "sha256" || name == "sha512" {
			out["base64"+name] = ofText(func(a []string) (string, error) {
				return base64.StdEncoding.EncodeToString(sum([]byte(a[0]))), nil
			}, "text")
		}
	}
	return out
}

// addressFunctions are those of networks. They seldom say which image runs,
// and often how many there are.
func addressFunctions() map[string]function.Function {
	return map[string]function.Function{
		"cidrhost": of(cty.String, func(args []cty.Value) (cty.Value, error) {
			p, err := netip.ParsePrefix(args[0].AsString())
			var n int64
			if err != nil || gocty.FromCtyValue(args[1], &n) != nil {
				return cty.NilVal, &cause{"function cidrhost wants a prefix and a whole number"}
			}
			a, ok := offset(p, n)
			if !ok {
				return cty.NilVal, &cause{"function cidrhost: the prefix has no such host"}
			}
			return cty.StringVal(a.String()), nil
		}, str("prefix"), function.Parameter{Name: "host", Type: cty.Number}),
		"cidrnetmask": ofText(func(a []string) (string, error) {
			p, err := netip.ParsePrefix(a[0])
			if err != nil || !p.Addr().Is4() {
				return "", &cause{"function cidrnetmask wants a prefix of IPv4"}
			}
			mask := ^uint32(0) << (32 - p.Bits())
			return netip.AddrFrom4([4]byte{byte(mask >> 24), byte(mask >> 16), byte(mask >> 8), byte(mask)}).String(), nil
		}, "prefix"),
		"cidrsubnet": of(cty.String, func(args []cty.Value) (cty.Value, error) {
			p, err := netip.ParsePrefix(args[0].AsString())
			var bits, n int64
			if err != nil || gocty.FromCtyValue(args[1], &bits) != nil || gocty.FromCtyValue(args[2], &n) != nil {
				return cty.NilVal, &cause{"function cidrsubnet wants a prefix and two whole numbers"}
			}
			s, ok := subnet(p, int(bits), n)
			if !ok {
				return cty.NilVal, &cause{"function cidrsubnet: the prefix has no such part"}
			}
			return cty.StringVal(s.String()), nil
		}, str("prefix"), function.Parameter{Name: "newbits", Type: cty.Number}, function.Parameter{Name: "netnum", Type: cty.Number}),
		"cidrsubnets": applied("cidrsubnets"),
	}
}

// offset is the n-th address of a prefix; a negative n counts from its end.
func offset(p netip.Prefix, n int64) (netip.Addr, bool) {
	p = p.Masked()
	free := p.Addr().BitLen() - p.Bits()
	if n < 0 {
		if free > 62 || -n > 1<<free {
			return netip.Addr{}, false
		}
		n += 1 << free
	}
	if free < 63 && n >= 1<<free {
		return netip.Addr{}, false
	}
	return add(p.Addr(), uint64(n), 0), true
}

func subnet(p netip.Prefix, bits int, n int64) (netip.Prefix, bool) {
	p = p.Masked()
	length := p.Bits() + bits
	if bits < 0 || length > p.Addr().BitLen() || n < 0 || bits < 63 && n >= 1<<bits {
		return netip.Prefix{}, false
	}
	return netip.PrefixFrom(add(p.Addr(), uint64(n), p.Addr().BitLen()-length), length), true
}

// add adds n, shifted left, to an address whose bits there are zero.
func add(a netip.Addr, n uint64, shift int) netip.Addr {
	b := a.AsSlice()
	for bit := range 64 {
		if n>>bit&1 == 0 || bit+shift >= len(b)*8 {
			continue
		}
		at := bit + shift
		b[len(b)-1-at/8] |= 1 << (at % 8)
	}
	out, _ := netip.AddrFromSlice(b)
	return out
}
