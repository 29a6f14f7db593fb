// For tests: an engine with its events sorted, so that a test waits for what it needs and never sleeps.
#pragma once

#include <gtest/gtest.h>
#include <poll.h>

#include <algorithm>
#include <array>
#include <functional>
#include <memory>
#include <string>
#include <variant>
#include <vector>

#include "atoll/engine/engine.h"
#include "transports.h"

namespace reef::testing {

inline constexpr Nanos kPatience = 60 * kSecond;  // sanitizers on a busy machine are slow

inline PeerId id_of(unsigned number) {
  PeerId id;
  id.bytes[0] = static_cast<std::uint8_t>(number);
  id.bytes[15] = static_cast<std::uint8_t>(number >> 8);
  return id;
}

inline EngineOptions options_of(unsigned number) {
  EngineOptions options;
  options.self = id_of(number);
  options.secret[0] = 7;
  options.shared_memory = shared_memory_chosen();
  options.silence = 30 * kSecond;  // tests of silence set their own
  return options;
}

class Island {
 public:
  explicit Island(unsigned number) : Island(options_of(number)) {}
  explicit Island(const EngineOptions& options) : id(options.self) {
    auto created = Engine::create(options);
    if (!created) {
      ADD_FAILURE() << created.error().message;
      std::abort();
    }
    engine = std::move(created.value());
  }

  // Waits until an event for which `wanted` is true is among those that came; it is then taken out.
  template <typename E>
  E await(std::function<bool(const E&)> wanted = [](const E&) { return true; },
          Nanos patience = kPatience) {
    const Nanos deadline = monotonic_now() + patience;
    while (true) {
      const auto at = std::find_if(seen_.begin(), seen_.end(), [&](const Event& event) {
        return std::holds_alternative<E>(event) && wanted(std::get<E>(event));
      });
      if (at != seen_.end()) {
        E event = std::get<E>(*at);
        seen_.erase(at);
        return event;
      }
      const Nanos left = deadline - monotonic_now();
      if (left <= 0) {
        ADD_FAILURE() << "no such event in time";
        return E{};
      }
      pollfd ready{engine->event_fd(), POLLIN, 0};
      ::poll(&ready, 1, static_cast<int>(left / kMillisecond) + 1);
      for (Event& event : engine->take_events()) {
        seen_.push_back(std::move(event));
      }
    }
  }
  LinkDown await_down(const PeerId& peer) {
    return await<LinkDown>([&](const LinkDown& event) { return event.peer == peer; });
  }
  void await_up(const PeerId& peer) {
    await<LinkUp>([&](const LinkUp& event) { return event.peer == peer; });
  }
  void install(const View& view, const Starts& starts = {}, Change kind = Change::abort) {
    engine->install(view, starts, kind);
    await<Installed>([&](const Installed& event) { return event.epoch == view.epoch; });
  }

  OpId submit(const OpRequest& request) {
    auto op = engine->submit(request);
    EXPECT_TRUE(op.ok()) << op.error().message;
    return op.value();
  }
  OpId all_reduce(const std::vector<float>& in, std::vector<float>& out, Plan plan = Plan::none,
                  Channel channel = 0) {
    OpRequest request;
    request.kind = OpKind::all_reduce;
    request.plan = plan;
    request.channel = channel;
    request.count = in.size();
    request.in = std::as_bytes(std::span(in));
    request.out = std::as_writable_bytes(std::span(out));
    return submit(request);
  }
  OpId barrier(Channel channel = 0) {
    OpRequest request;
    request.kind = OpKind::barrier;
    request.channel = channel;
    return submit(request);
  }
  Outcome finish(OpId op) {
    auto outcome = engine->wait(op, kPatience);
    EXPECT_TRUE(outcome.has_value()) << "op " << op << " did not end";
    engine->release(op);
    Outcome none;
    none.code = Code::deadline;
    return outcome.value_or(none);
  }
  Code code(OpId op) { return finish(op).code; }

  PeerId id;
  std::unique_ptr<Engine> engine;

 private:
  std::vector<Event> seen_;
};

// Links all with one another, younger to older, and installs a view of all.
class Atoll {
 public:
  explicit Atoll(unsigned size, const std::function<void(EngineOptions&)>& adjust = {}) {
    for (unsigned i = 0; i < size; ++i) {
      EngineOptions options = options_of(i + 1);
      if (adjust) {
        adjust(options);
      }
      islands.push_back(std::make_unique<Island>(options));
      view.members.push_back(islands.back()->id);
    }
    for (unsigned young = 0; young < size; ++young) {
      for (unsigned old = 0; old < young; ++old) {
        islands[old]->engine->expect(islands[young]->id);
        islands[young]->engine->dial(islands[old]->id, "127.0.0.1", islands[old]->engine->port());
      }
    }
    for (unsigned a = 0; a < size; ++a) {
      for (unsigned b = 0; b < size; ++b) {
        if (a != b) {
          islands[a]->await_up(islands[b]->id);
        }
      }
    }
    view.epoch = 1;
    for (auto& island : islands) {
      island->install(view);
    }
  }
  Island& operator[](std::size_t index) { return *islands[index]; }
  [[nodiscard]] std::size_t size() const { return islands.size(); }

  std::vector<std::unique_ptr<Island>> islands;
  View view;
};

}  // namespace reef::testing
