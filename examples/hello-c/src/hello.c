#include <stdio.h>

/* Compiled in one image, shipped in another. */
int main(void) {
    puts("hello from C");
    return 0;
}
