package demo

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
)

// say is a program that prints each of its arguments on a line. The demo has no
// compiler and no other image to take one from, so it comes as what it is made
// of: for each argument its length is counted, its end becomes a newline, and
// it is written to standard output.
var say = map[string]struct {
	machine elf.Machine
	code    []byte
}{
	"amd64": {elf.EM_X86_64, []byte{
		0x48, 0x8d, 0x5c, 0x24, 0x08, // lea rbx, [rsp+8]
		0x48, 0x83, 0xc3, 0x08, // next: add rbx, 8
		0x48, 0x8b, 0x33, // mov rsi, [rbx]
		0x48, 0x85, 0xf6, // test rsi, rsi
		0x74, 0x1b, // jz done
		0x31, 0xd2, // xor edx, edx
		0x80, 0x3c, 0x16, 0x00, // length: cmp byte [rsi+rdx], 0
		0x74, 0x04, // je found
		0xff, 0xc2, // inc edx
		0xeb, 0xf6, // jmp length
		0xc6, 0x04, 0x16, 0x0a, // found: mov byte [rsi+rdx], '\n'
		0xff, 0xc2, // inc edx
		0x6a, 0x01, // push 1
		0x58,       // pop rax: write
		0x89, 0xc7, // mov edi, eax
		0x0f, 0x05, // syscall
		0xeb, 0xd9, // jmp next
		0x31, 0xff, // done: xor edi, edi
		0x6a, 0x3c, // push 60
		0x58,       // pop rax: exit
		0x0f, 0x05, // syscall
	}},
	"arm64": {elf.EM_AARCH64, words(
		0x910023e9, // add x9, sp, #8
		0x91002129, // next: add x9, x9, #8
		0xf9400121, // ldr x1, [x9]
		0xb40001a1, // cbz x1, done
		0xaa1f03e2, // mov x2, xzr
		0x38626823, // length: ldrb w3, [x1, x2]
		0xb4000063, // cbz x3, found
		0x91000442, // add x2, x2, #1
		0x17fffffd, // b length
		0xd2800143, // found: mov x3, #'\n'
		0x38226823, // strb w3, [x1, x2]
		0x91000442, // add x2, x2, #1
		0xb24003e0, // mov x0, #1
		0xb27a03e8, // mov x8, #64: write
		0xd4000001, // svc #0
		0x17fffff2, // b next
		0xaa1f03e0, // done: mov x0, xzr
		0xd2800ba8, // mov x8, #93: exit
		0xd4000001, // svc #0
	)},
}

func words(list ...uint32) (b []byte) {
	for _, w := range list {
		b = binary.LittleEndian.AppendUint32(b, w)
	}
	return b
}

// program is say as a file that Linux starts; nil for a processor it was not
// written for.
func program(arch string) []byte {
	p, ok := say[arch]
	if !ok {
		return nil
	}
	const base, header = 0x400000, 64 + 56 // of the file and its one segment
	var b bytes.Buffer
	size := uint64(header + len(p.code))
	for _, part := range []any{
		elf.Header64{
			Ident: [elf.EI_NIDENT]byte{0x7f, 'E', 'L', 'F', byte(elf.ELFCLASS64), byte(elf.ELFDATA2LSB), byte(elf.EV_CURRENT)},
			Type:  uint16(elf.ET_EXEC), Machine: uint16(p.machine), Version: uint32(elf.EV_CURRENT),
			Entry: base + header, Phoff: 64, Ehsize: 64, Phentsize: 56, Phnum: 1, Shentsize: 64,
		},
		elf.Prog64{Type: uint32(elf.PT_LOAD), Flags: uint32(elf.PF_R | elf.PF_X), Vaddr: base, Paddr: base, Filesz: size, Memsz: size, Align: 0x1000},
		p.code,
	} {
		_ = binary.Write(&b, binary.LittleEndian, part) // fixed sizes into memory: it never fails
	}
	return b.Bytes()
}
