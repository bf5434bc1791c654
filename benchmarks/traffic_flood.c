/* SYNs from random addresses that nobody answers. They belong to no connection of the play and stand in no truth: each
 * would need a record of its own until its deadline, and a flood has millions. */
#include "traffic_plan.h"

#include <string.h>

void flood_syn(int64_t at)
{
    static Connection c;
    static Plan plan;
    End *client = &c.end[CLIENT];
    plan.count = 0;
    connection_start(&c, 0, false);
    c.plan = &plan;
    uint64_t host = random_u64();
    if (c.ip_version == 4) {
        memcpy(client->ip, &host, 4);
        if (client->ip[0] == 10) /* the network of the play */
            client->ip[0] = 11;
    } else {
        memcpy(client->ip + 8, &host, 8);
    }
    client->port = (uint16_t)(1024 + random_below(64512));
    say(&c, at, CLIENT, SYN, M_SYN)->offset = 0;
    wire_write(&c, &plan.packets[0]);
}
