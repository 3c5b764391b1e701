/* SHA-256 of several messages at once. */

#include <stddef.h>
#include <stdint.h>

enum { BLOCK = 64 };

/* `head`, shorter than a block, and then `body` go on from `state`, into which `before` bytes, whole blocks, have gone. */
struct message {
    const unsigned char *head, *body;
    uint64_t head_size, body_size, before;
    uint64_t goes_on; /* whether more will follow: then these are whole blocks, and nothing ends the message */
    uint32_t state[8];
};

/* Go on with the state of each message. 0, or 1 where this CPU cannot. */
int vitpipe_sha256(struct message *messages, size_t count);
