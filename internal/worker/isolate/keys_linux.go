package isolate

import (
	"fmt"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// keyCalls are, for the call conventions of a machine, the first of three calls
// that follow each other: add_key, request_key and keyctl.
func keyCalls() map[uint32]uint32 {
	switch runtime.GOARCH {
	case "amd64":
		return map[uint32]uint32{unix.AUDIT_ARCH_X86_64: 248, unix.AUDIT_ARCH_I386: 286}
	case "arm64":
		return map[uint32]uint32{unix.AUDIT_ARCH_AARCH64: 217, unix.AUDIT_ARCH_ARM: 309}
	}
	return nil
}

// ForbidKeys has the programs that this thread starts know no keys of the
// kernel's (keyrings(7)), as container runtimes commonly have it: keys stay
// with a user namespace for each of its users, where nobody finds them who is
// not that user. It takes CAP_SYS_ADMIN.
func ForbidKeys() error {
	calls := keyCalls()
	if calls == nil {
		return fmt.Errorf("forbid keys of the kernel: the numbers of its calls on %s are not known", runtime.GOARCH)
	}
	// Where the two fields are: seccomp(2), struct seccomp_data.
	const number, convention = 0, 4
	load := func(at uint32) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: at}
	}
	answer := func(k uint32) unix.SockFilter { return unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: k} }
	filter := []unix.SockFilter{load(convention)}
	for arch, first := range calls {
		filter = append(filter,
			unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: arch, Jf: 6},
			load(number),
			unix.SockFilter{Code: unix.BPF_ALU | unix.BPF_AND | unix.BPF_K, K: ^uint32(x32)},
			unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JGE | unix.BPF_K, K: first, Jf: 2},
			unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JGT | unix.BPF_K, K: first + 2, Jt: 1},
			answer(unix.SECCOMP_RET_ERRNO|uint32(unix.EPERM)),
			answer(unix.SECCOMP_RET_ALLOW))
	}
	filter = append(filter, answer(unix.SECCOMP_RET_ERRNO|uint32(unix.EPERM))) // there is no other convention
	program := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	_, _, errno := unix.RawSyscall(unix.SYS_PRCTL, unix.PR_SET_SECCOMP, unix.SECCOMP_MODE_FILTER, uintptr(unsafe.Pointer(&program)))
	if errno != 0 {
		return fmt.Errorf("forbid keys of the kernel: %w", errno)
	}
	return nil
}

// x32 is a bit in numbers of calls that makes no difference to us: pointers are
// short. No other convention uses it.
const x32 = 0x40000000
