/* Random numbers: splitmix64 (Steele, Lea, Flood 2014), the same on every machine. */
#include "traffic.h"

#include <math.h>

static uint64_t state;

void random_seed(uint64_t seed)
{
    state = seed;
}

uint64_t random_next(uint64_t *at)
{
    uint64_t z = *at += UINT64_C(0x9e3779b97f4a7c15);
    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    return z ^ z >> 31;
}

uint64_t random_u64(void)
{
    return random_next(&state);
}

/* 0 <= result < bound; the bias of the multiplication is below 2^-32 for every bound used here. */
int64_t random_below(int64_t bound)
{
    return (int64_t)((unsigned __int128)random_u64() * (uint64_t)bound >> 64);
}

bool chance(double share)
{
    return (double)(random_u64() >> 11) * 0x1p-53 < share;
}

double random_exponential(double mean)
{
    return -mean * log1p(-(double)(random_u64() >> 11) * 0x1p-53);
}
