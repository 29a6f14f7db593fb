// Hosts of an emulated network: network namespaces, each with one TUN device. Needs root. One
// thread, which is the process's only one: namespaces are entered for a moment to make them.
//
// Namespaces have names (NAME-0, NAME-1, ... under /run/netns), so that others can start processes
// in them, and a name outlives its maker. A lab therefore holds a lock, which the kernel lets go
// when the process ends, however it ends; whoever makes a lab first removes what labs without one
// have left. That can be wrong in no case: locks are taken before the first namespace is made.
#pragma once

#include <string>
#include <vector>

#include "network.h"

namespace wan {

struct HostOptions {
  std::string name;  // of the lab
  Host hosts = 2;
  int mtu = 1500;
  bool offload = true;     // the kernel hands over many segments at once
  std::string congestion;  // of the hosts' TCP; empty: the machine's own
};

// Addresses are 10.77.0.1, 10.77.0.2, ...
[[nodiscard]] std::string address_of(Host host);
[[nodiscard]] std::uint32_t address_bits(Host host);
[[nodiscard]] std::string namespace_of(const std::string& lab, Host host);

class Hosts {
 public:
  // Throws std::runtime_error with one line that says what is missing; nothing is left then.
  explicit Hosts(const HostOptions& options);
  ~Hosts();  // removes the namespaces; processes in them lose their network
  Hosts(const Hosts&) = delete;
  Hosts& operator=(const Hosts&) = delete;

  [[nodiscard]] int device(Host host) const { return devices_[host]; }

  // Labs whose makers are gone; returns their names.
  static std::vector<std::string> remove_leftovers();

 private:
  void make(Host host);
  void remove();

  HostOptions options_;
  int lock_ = -1;
  std::vector<int> devices_;
};

}  // namespace wan
