// How a connection goes through a relay, a peer that both sides can reach: what is said on it to the
// relay before anything else. Any thread.
#pragma once

#include "atoll/base/ids.h"
#include "atoll/net/handshake.h"

namespace reef {

struct Detour {
  PeerId relay;
  GreetingBytes preamble{};  // RELAY_ASK or RELAY_ANSWER
};

// What a relay has been told of a pair that it may bring together: drawn from the job's secret.
using Ticket = Secret;

// To the relay: bring me to `target`.
[[nodiscard]] inline GreetingBytes ask_relay(const PeerId& self, const PeerId& target,
                                             const Ticket& ticket) {
  Hello ask;
  ask.sender = self;
  ask.receiver = target;
  ask.secret = ticket;
  return encode_greeting(FrameType::relay_ask, ask);
}

// To the relay: I am the peer that `asker` wants, and this is the call.
[[nodiscard]] inline GreetingBytes answer_relay(const PeerId& self, const PeerId& asker,
                                                const Nonce& call) {
  Hello answer;
  answer.sender = self;
  answer.receiver = asker;
  answer.nonce = call;
  return encode_greeting(FrameType::relay_answer, answer);
}

}  // namespace reef
