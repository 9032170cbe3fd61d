/*
 * The kernel's memory, through /proc/kcore: an ELF core file whose program headers say which addresses
 * stand where in it.
 */
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "guest.h"

static int fd;
static Elf64_Phdr *segments;
static int segment_count;

int kcore_start(void)
{
	Elf64_Ehdr header;

	fd = open("/proc/kcore", O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	if (pread(fd, &header, sizeof(header), 0) != sizeof(header))
		return -EIO;
	ssize_t size = header.e_phnum * sizeof(*segments);

	segments = malloc(size);
	segment_count = header.e_phnum;
	return pread(fd, segments, size, header.e_phoff) == size ? 0 : -EIO;
}

size_t kernel_memory(u64 address, void *to, size_t size)
{
	memset(to, 0, size);
	for (int i = 0; i < segment_count; i++) {
		const Elf64_Phdr *segment = &segments[i];
		u64 inside = address - segment->p_vaddr;

		if (segment->p_type != PT_LOAD || address < segment->p_vaddr || inside >= segment->p_memsz)
			continue;
		if (size > segment->p_memsz - inside)
			size = segment->p_memsz - inside;
		ssize_t got = pread(fd, to, size, segment->p_offset + inside);

		return got < 0 ? 0 : (size_t)got;
	}
	return 0;
}
