// Commands on their way to the reactor: a queue under a mutex, and a bell. Thread-safe.
#pragma once

#include <cstdint>
#include <future>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "atoll/engine/engine.h"
#include "atoll/engine/fetcher.h"
#include "atoll/engine/prober.h"
#include "atoll/net/socket.h"
#include "atoll/net/wakeup.h"

namespace reef {

struct SubmitCommand {
  OpRequest request;
};
struct AbortCommand {
  OpId op = 0;
};
struct ListenCommand {
  Channel channel = 0;
};
struct ExpectCommand {
  PeerId peer;
  Endpoints endpoints;
  Names names;
};
struct DialCommand {
  PeerId peer;
  Endpoints endpoints;
  std::shared_ptr<const Detour> detour;  // null: straight
  Names names;
};
struct CarryCommand {
  PeerId one;
  PeerId other;
  std::optional<Ticket> ticket;  // nothing: no more
};
struct DropCommand {
  PeerId peer;
};
struct FenceCommand {
  std::uint64_t attempt = 0;
  Change kind = Change::drain;
};
struct InstallCommand {
  View view;
  Starts starts;
  Change kind = Change::drain;
};
struct PublishCommand {
  std::shared_ptr<const Engine::Published> state;  // null: nothing is published any more
};
struct FetchCommand {
  FetchRequest request;
};
struct ProbeCommand {
  ProbeRequest request;
};
struct ResolvedCommand {
  std::uint64_t ticket = 0;
  Result<std::vector<Address>> addresses;
};
struct DiedCommand {
  std::uint64_t ticket = 0;  // of the death watch
};
struct StatsCommand {
  std::shared_ptr<std::promise<EngineStats>> answer;
};
struct CloseCommand {};

using Command = std::variant<SubmitCommand, AbortCommand, ListenCommand, ExpectCommand, DialCommand,
                             CarryCommand, DropCommand, FenceCommand, InstallCommand,
                             PublishCommand, FetchCommand, ProbeCommand, ResolvedCommand,
                             DiedCommand, StatsCommand, CloseCommand>;

class Mailbox {
 public:
  explicit Mailbox(Wakeup wakeup) : wakeup_(std::move(wakeup)) {}

  // False when the reactor takes no more commands; the command is then gone.
  bool post(Command command) {
    bool first = false;
    {
      const std::lock_guard lock(mutex_);
      if (closed_) {
        return false;
      }
      first = commands_.empty();
      commands_.push_back(std::move(command));
    }
    if (first) {  // the reactor takes all at once: one wake-up is enough
      wakeup_.ring();
    }
    return true;
  }
  void take(std::vector<Command>& commands) {
    const std::lock_guard lock(mutex_);
    wakeup_.silence();
    commands.swap(commands_);
  }
  // Refuses commands from now on; returns those that were not taken.
  std::vector<Command> close() {
    const std::lock_guard lock(mutex_);
    closed_ = true;
    return std::exchange(commands_, {});
  }
  [[nodiscard]] int fd() const { return wakeup_.fd(); }

 private:
  Wakeup wakeup_;
  std::mutex mutex_;
  std::vector<Command> commands_;
  bool closed_ = false;
};

}  // namespace reef
