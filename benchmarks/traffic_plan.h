/* How episodes write their packets into a connection's plan. */
#ifndef TRAFFIC_PLAN_H
#define TRAFFIC_PLAN_H

#include "traffic.h"

#define US INT64_C(1000)

/* A packet of the end `from`, at the place where its stream stands, after which the planned situation holds. */
Packet *say(Connection *c, int64_t at, int from, unsigned flags, int meaning);
Packet *ack(Connection *c, int64_t at, int from);
/* New payload; whether and when the peer gets it is the caller's choice (arrives). */
Packet *data(Connection *c, int64_t at, int from, uint32_t payload_bytes);
/* The peer has everything that `from` has sent. */
void arrives(Connection *c, int from);
/* The same bytes again, with what the sender knows by now. */
Packet *resend(Connection *c, int64_t at, const Packet *old, int meaning);
Packet *reset(Connection *c, int64_t at, int from, unsigned flags);
/* The plan in the order of time; packets planned earlier come first at equal times. */
void plan_sort(Plan *plan);
/* A round trip from the tap to `side` and back, now. */
int64_t trip(const Connection *c, int side);
int64_t retransmission_timeout(const Connection *c);
uint32_t segment_size(const Connection *c);

#endif
