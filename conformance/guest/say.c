/*
 * Output: bytes to qemu's debug port, which the kernel's own messages never reach.
 */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/io.h>

#include "guest.h"

#define PORT 0xe9

void say_start(void)
{
	ioperm(PORT, 1, 1);
}

/* As outsb of <sys/io.h>, which does not tell the compiler that it reads memory. */
static void put(const char *text, size_t size)
{
	__asm__ volatile("rep outsb" : "+S"(text), "+c"(size) : "d"(PORT) : "memory");
}

void say(const char *format, ...)
{
	char text[1024];
	va_list args;

	va_start(args, format);
	int size = vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	put(text, size < (int)sizeof(text) ? size : (int)sizeof(text) - 1);
}

void say_hex(const void *bytes, size_t size)
{
	static const char digits[] = "0123456789abcdef";
	const u8 *from = bytes;
	char text[512];

	while (size > 0) {
		size_t now = size < sizeof(text) / 2 ? size : sizeof(text) / 2;

		for (size_t i = 0; i < now; i++) {
			text[2 * i] = digits[from[i] >> 4];
			text[2 * i + 1] = digits[from[i] & 15];
		}
		put(text, 2 * now);
		from += now;
		size -= now;
	}
}

void say_text(const char *text)
{
	put("\"", 1);
	for (; *text; text++) {
		if (*text == '"' || *text == '\\')
			say("\\%c", *text);
		else if ((u8)*text < 0x20 || (u8)*text > 0x7e)
			say("\\u%04x", (u8)*text);
		else
			put(text, 1);
	}
	put("\"", 1);
}
