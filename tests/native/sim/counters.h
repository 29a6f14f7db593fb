// The promise about counters: what one member has committed, every other member has done.
#pragma once

#include <string>

#include "atoll/collective/core.h"
#include "sim/hosts.h"
#include "sim/program.h"

namespace reef::sim {

// Failures may be one behind.
inline void compare_counters(Hosts& hosts, std::size_t one, std::size_t two, Channel channel,
                             Sequence committed, const Ledger& ledger, Failure& failure) {
  const Progress progress = hosts.core(two).progress();
  const auto found = progress.find(channel);
  const Sequence done = found == progress.end() ? 0 : found->second.done;
  if (committed <= done) return;
  if (committed == done + 1 && ledger.failed_at(one, channel, done)) return;
  failure.report("peer " + std::to_string(one) + " has committed " + std::to_string(committed) +
                 " ops, peer " + std::to_string(two) + " has done " + std::to_string(done));
}

inline void check_counters(Hosts& hosts, std::size_t peers, const Ledger& ledger,
                           Failure& failure) {
  for (std::size_t one = 0; one < peers; ++one) {
    if (!hosts.alive(one) || hosts.core(one).view().size() == 0) continue;
    for (const auto& [channel, counters] : hosts.core(one).progress()) {
      if (counters.started - counters.committed > 1 || counters.done < counters.committed ||
          counters.done > counters.started) {
        failure.report("counters out of order at peer " + std::to_string(one));
      }
      for (std::size_t two = 0; two < peers; ++two) {
        if (two == one || !hosts.alive(two)) continue;
        if (hosts.core(two).view().epoch != hosts.core(one).view().epoch) continue;
        if (!hosts.core(two).view().rank_of(hosts.id(one))) continue;
        compare_counters(hosts, one, two, channel, counters.committed, ledger, failure);
      }
    }
  }
}

}  // namespace reef::sim
