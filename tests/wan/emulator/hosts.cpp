#include "hosts.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <sched.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <stdexcept>
#include <utility>

#include "packet.h"

namespace wan {

namespace {

namespace fs = std::filesystem;

constexpr const char* kLocks = "/run/atoll-wan";
constexpr const char* kNamespaces = "/run/netns";
constexpr const char* kDevice = "wan0";
constexpr int kDeviceQueue = 10'000;
constexpr std::uint32_t kFirstAddress = (10u << 24) | (77u << 16) | 1u;

[[noreturn]] void fail(const std::string& what) {
  const int reason = errno;
  throw std::runtime_error(what + (reason != 0 ? std::string(": ") + std::strerror(reason) : ""));
}

// Closed when it goes.
class File {
 public:
  explicit File(int fd) : fd_(fd) {}
  ~File() {
    if (fd_ >= 0) ::close(fd_);
  }
  File(const File&) = delete;
  File& operator=(const File&) = delete;
  [[nodiscard]] int get() const { return fd_; }
  int release() { return std::exchange(fd_, -1); }

 private:
  int fd_;
};

// While it lives this thread is in a new network namespace.
class Elsewhere {
 public:
  Elsewhere() : here_(::open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC)) {
    if (here_.get() < 0 || ::unshare(CLONE_NEWNET) != 0) fail("no new network namespace");
  }
  ~Elsewhere() {
    if (::setns(here_.get(), CLONE_NEWNET) != 0) std::abort();  // nothing would be right any more
  }
  Elsewhere(const Elsewhere&) = delete;
  Elsewhere& operator=(const Elsewhere&) = delete;

 private:
  File here_;
};

void write_setting(const std::string& name, const std::string& value) {
  std::ofstream file("/proc/sys/net/ipv4/" + name);
  file << value << std::flush;
  if (!file) fail("cannot set net.ipv4." + name + " to '" + value + "'");
}

std::string read_setting(const std::string& name) {
  std::ifstream file("/proc/sys/net/ipv4/" + name);
  std::string text;
  std::getline(file, text);
  return text;
}

bool has_word(const std::string& text, const std::string& word) {
  return (" " + text + " ").find(" " + word + " ") != std::string::npos;
}

// A namespace takes as its own only what the machine lets everybody choose.
void allow_congestion(const std::string& name) {
  if (!has_word(read_setting("tcp_available_congestion_control"), name)) {
    errno = 0;
    fail("this kernel has no congestion control '" + name + "'; it has " +
         read_setting("tcp_available_congestion_control"));
  }
  const std::string allowed = read_setting("tcp_allowed_congestion_control");
  if (!has_word(allowed, name)) {
    write_setting("tcp_allowed_congestion_control", allowed + " " + name);
  }
}

ifreq request_for(const char* device) {
  ifreq request{};
  std::strncpy(request.ifr_name, device, IFNAMSIZ - 1);
  return request;
}

void ask(int socket, unsigned long what, ifreq& request) {
  if (::ioctl(socket, what, &request) != 0) fail(std::string("cannot set up ") + request.ifr_name);
}

sockaddr internet(std::uint32_t bits) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(bits);
  sockaddr plain{};
  std::memcpy(&plain, &address, sizeof plain);
  return plain;
}

void bring_up(int socket, const char* device) {
  ifreq request = request_for(device);
  ask(socket, SIOCGIFFLAGS, request);
  request.ifr_flags = static_cast<short>(request.ifr_flags | IFF_UP | IFF_RUNNING);
  ask(socket, SIOCSIFFLAGS, request);
}

void set_up_device(Host host, int mtu) {
  const File socket(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  if (socket.get() < 0) fail("no socket in the new namespace");
  ifreq request = request_for(kDevice);
  request.ifr_addr = internet(address_bits(host));
  ask(socket.get(), SIOCSIFADDR, request);
  request = request_for(kDevice);
  request.ifr_netmask = internet(0xffffff00);
  ask(socket.get(), SIOCSIFNETMASK, request);
  request = request_for(kDevice);
  request.ifr_mtu = mtu;
  ask(socket.get(), SIOCSIFMTU, request);
  request = request_for(kDevice);
  request.ifr_qlen = kDeviceQueue;
  ask(socket.get(), SIOCSIFTXQLEN, request);
  bring_up(socket.get(), kDevice);
  bring_up(socket.get(), "lo");
}

int open_device(bool offload) {
  File device(::open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC));
  if (device.get() < 0) fail("cannot open /dev/net/tun");
  ifreq request = request_for(kDevice);
  request.ifr_flags = IFF_TUN | IFF_NO_PI | IFF_VNET_HDR;
  if (::ioctl(device.get(), TUNSETIFF, &request) != 0) fail("no TUN device");
  const int header = static_cast<int>(kVirtioBytes);
  if (::ioctl(device.get(), TUNSETVNETHDRSZ, &header) != 0) fail("no virtio header on TUN");
  const unsigned features = offload ? TUN_F_CSUM | TUN_F_TSO4 : 0;
  if (::ioctl(device.get(), TUNSETOFFLOAD, features) != 0) fail("no offload on TUN");
  return device.release();
}

void remove_namespaces(const std::string& lab) {
  for (Host host = 0; host < kMostHosts; ++host) {
    const std::string path = std::string(kNamespaces) + "/" + namespace_of(lab, host);
    ::umount2(path.c_str(), MNT_DETACH);
    ::unlink(path.c_str());
  }
}

std::string lock_path(const std::string& lab) { return std::string(kLocks) + "/" + lab; }

}  // namespace

std::uint32_t address_bits(Host host) { return kFirstAddress + host; }

std::string address_of(Host host) { return "10.77.0." + std::to_string(host + 1); }

std::string namespace_of(const std::string& lab, Host host) {
  return lab + "-" + std::to_string(host);
}

Hosts::Hosts(const HostOptions& options) : options_(options) {
  fs::create_directories(kLocks);
  fs::create_directories(kNamespaces);
  File lock(::open(lock_path(options.name).c_str(), O_CREAT | O_RDWR | O_CLOEXEC, 0600));
  if (lock.get() < 0) fail("cannot write " + lock_path(options.name));
  if (::flock(lock.get(), LOCK_EX | LOCK_NB) != 0) {
    errno = 0;
    fail("a lab of the name " + options.name + " runs already");
  }
  lock_ = lock.release();
  try {
    remove_namespaces(options.name);
    if (!options.congestion.empty()) allow_congestion(options.congestion);
    for (Host host = 0; host < options.hosts; ++host) make(host);
  } catch (...) {
    remove();
    throw;
  }
}

Hosts::~Hosts() { remove(); }

void Hosts::remove() {
  for (const int device : devices_) ::close(device);
  devices_.clear();
  remove_namespaces(options_.name);
  ::unlink(lock_path(options_.name).c_str());
  ::close(lock_);
}

void Hosts::make(Host host) {
  const std::string path = std::string(kNamespaces) + "/" + namespace_of(options_.name, host);
  const File place(::open(path.c_str(), O_CREAT | O_EXCL | O_RDONLY | O_CLOEXEC, 0));
  if (place.get() < 0) fail("cannot make " + path);
  const Elsewhere elsewhere;
  if (::mount("/proc/self/ns/net", path.c_str(), "none", MS_BIND, nullptr) != 0) {
    fail("cannot name the namespace " + path);
  }
  devices_.push_back(open_device(options_.offload));
  set_up_device(host, options_.mtu);
  if (!options_.congestion.empty()) write_setting("tcp_congestion_control", options_.congestion);
}

std::vector<std::string> Hosts::remove_leftovers() {
  std::vector<std::string> removed;
  std::error_code none;
  for (const fs::directory_entry& entry : fs::directory_iterator(kLocks, none)) {
    const std::string lab = entry.path().filename();
    const File lock(::open(entry.path().c_str(), O_RDWR | O_CLOEXEC));
    if (lock.get() < 0 || ::flock(lock.get(), LOCK_EX | LOCK_NB) != 0) continue;
    remove_namespaces(lab);
    ::unlink(entry.path().c_str());
    removed.push_back(lab);
  }
  return removed;
}

}  // namespace wan
