// The emulator's commands, one a line; every setting of a network is made by one. Pure; one thread.
//
//   host I up MBIT down MBIT queue MS       any of the three; MBIT: 0.001 to 100000, MS: 1 to 10000
//   link I J delay MS jitter MS loss P rate MBIT    both ways; MS one way, 0 to 60000; P: 0 to 1;
//                                           rate 0: no other than the lines'
//   path I J ...                            the same, from I to J alone
//   cut I J, heal I J                       nothing passes between I and J
//   isolate I, rejoin I                     nothing passes to or from I
//   mark                                    begins to count anew: lateness, bytes, drops
//   report                                  what was counted since, as a line of JSON
//
// I and J are hosts from 0, or * for all.
#pragma once

#include <string>

#include "lateness.h"
#include "network.h"

namespace wan {

// The answer: "ok", the report, or "error: " and what is wrong; then nothing was changed.
[[nodiscard]] std::string obey(const std::string& line, Network& network, Lateness& lateness);
[[nodiscard]] std::string report(const Network& network, const Lateness& lateness);

}  // namespace wan
