// What the simulated network needs of the peers; `number` counts all that ever live.
#pragma once

#include <functional>
#include <string>

#include "atoll/collective/core.h"

namespace reef::sim {

class Hosts {
 public:
  virtual ~Hosts() = default;
  virtual Core& core(std::size_t number) = 0;
  // Its core works; a peer that has closed still sends what it has said.
  [[nodiscard]] virtual bool alive(std::size_t number) const = 0;
  // Its process is there, and a connection to it is not refused.
  [[nodiscard]] virtual bool exists(std::size_t number) const = 0;
  // Until when the peer's process is stopped; 0: it runs.
  [[nodiscard]] virtual Nanos stopped_until(std::size_t number) const = 0;
  [[nodiscard]] virtual const PeerId& id(std::size_t number) const = 0;
  // After every call into a core: its actions wait.
  virtual void take_actions(std::size_t number) = 0;
  // Runs `action` after a delay, when the peer's process runs, if it lives then.
  virtual void on_peer(std::size_t number, std::uint64_t delay, std::function<void()> action) = 0;
  // A connection between two that live could not be mended in time: false if they must not part,
  // because nobody would be left.
  virtual bool part(std::size_t one, std::size_t two) = 0;
  // A peer that has closed was found gone before all that it had said was heard.
  virtual void left_early(std::size_t number) = 0;
  virtual void note(const std::string& what) = 0;  // for the trace
};

}  // namespace reef::sim
