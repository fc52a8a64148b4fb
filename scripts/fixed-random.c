/* Loaded before the other libraries by scripts/programs: the build scripts of dependencies get the same bytes from
 * getrandom at each run, so that what they generate is the same. promql-parser's build script writes the tables of its
 * grammar in the order of a hash map, which Rust seeds from getrandom. Other programs of the build are not changed.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <unistd.h>

ssize_t getrandom(void *buffer, size_t length, unsigned int flags)
{
    /* Cargo links each build script as build-script-NAME, NAME being that of its source file. */
    static const char build_script[] = "build-script-";
    if (strncmp(program_invocation_short_name, build_script, sizeof build_script - 1) == 0) {
        memset(buffer, 0x5a, length);
        return (ssize_t)length;
    }
    return syscall(SYS_getrandom, buffer, length, flags);
}
