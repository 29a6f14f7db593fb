// The dialer's own records: a call, its attempts, and their lines. The reactor thread only.
#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "atoll/net/dialer.h"

namespace reef {

// One connection of an attempt.
struct Dialer::Line final : Ready {
  enum class Stage : std::uint8_t { connecting, securing, greeted, through };
  Line(Dialer& its_dialer, Attempt& its_attempt, std::uint32_t its_index,
       std::unique_ptr<Stream> its_stream)
      : dialer(its_dialer),
        attempt(its_attempt),
        index(its_index),
        stream(std::move(its_stream)) {}
  void on_ready(std::uint32_t) override { dialer.progress(*this); }

  Dialer& dialer;
  Attempt& attempt;
  std::uint32_t index;
  std::unique_ptr<Stream> stream;
  Registration registration;
  Stage stage = Stage::connecting;
  GreetingBytes bytes{};
  std::size_t filled = 0;
  Hello ack;
};

// All connections to one address.
struct Dialer::Attempt {
  Attempt(Call& its_call, const Route& its_route, Nanos its_deadline)
      : call(its_call), route(its_route), deadline(its_deadline) {}

  // Whether the other side has the HELLO of every line, or will have it.
  [[nodiscard]] bool in_contact() const {
    return std::all_of(lines.begin(), lines.end(),
                       [](const auto& line) { return line->stage >= Line::Stage::greeted; });
  }
  [[nodiscard]] bool connected() const {
    return std::all_of(lines.begin(), lines.end(),
                       [](const auto& line) { return line->stage > Line::Stage::connecting; });
  }

  Call& call;
  Route route;
  Nanos deadline;
  Nonce nonce{};
  std::uint32_t number = 0;       // of a repair's HELLO
  std::uint32_t connections = 1;  // of the link; 0: not known before the first is through
  std::optional<std::uint32_t> agreed;  // flags of the first acknowledgement
  std::vector<std::unique_ptr<Line>> lines;
};

// The whole endeavour to reach one peer, or to fill one slot of its link.
struct Dialer::Call {
  static constexpr std::int64_t kLink = -1;

  struct Name {  // an endpoint whose host is none in numbers
    Endpoint endpoint;
    std::uint64_t ticket = 0;  // of the look-up under way; 0: none
    bool known = false;
  };

  Key key;
  std::string where;  // the endpoints, for messages
  std::shared_ptr<const Detour> detour;  // null: straight to the peer
  std::uint32_t connections = 1;  // that an attempt opens; 0: the first one's round trip decides
  std::uint32_t most = 1;         // then
  Nonce nonce{};      // of the link, in a repair
  Nanos began = 0;
  Nanos deadline = kNever;
  Nanos pause = 0;
  Nanos next_round = kNever;  // kNever: one is under way
  Nanos next_start = 0;       // in a round: when to try the next route
  std::uint64_t tries = 0;
  std::vector<Name> names;
  std::vector<Route> routes;
  std::size_t next_route = 0;
  std::vector<std::unique_ptr<Attempt>> attempts;
  bool over = false;         // irreparable, and waits to be cancelled
  bool all_refused = true;  // in this round: nobody listens there any more
  std::string last_error = "no answer";

  [[nodiscard]] bool repair() const { return key.second > kLink; }
  // One connection, on which the relay's call is answered and nothing else.
  [[nodiscard]] bool answers() const { return key.second < kLink; }
  [[nodiscard]] std::uint32_t slot() const { return static_cast<std::uint32_t>(key.second); }
  [[nodiscard]] bool looking_up() const {
    return std::any_of(names.begin(), names.end(),
                       [](const Name& name) { return name.ticket != 0; });
  }
};

}  // namespace reef
